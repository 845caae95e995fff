//! Running a job: inputs are pushed through its stages batch by batch. Maps hand on what they make at once; a reduce
//! gathers, and hands on at the end of its inputs. So a job of maps alone needs the memory of a batch, whatever it reads.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::MapReduceOptions;
use super::budget::{Batch, Budget, Charge};
use super::builtin::{MapFunction, Mapped, ReduceFunction};
use super::error::{Failure, Fault, FaultClass, JobError};
use super::javascript::{self, JavaScript, ReduceCall, Reduction};
use super::job::{Encoding, Job, MapInput, Script, key_term};
use super::json;
use super::plan::{Run, Stage, plan};
use super::source::Source;
use crate::domain::key::ObjectName;
use crate::engine::{Engine, EngineError, ObjectView, ReadOptions};
use crate::erlang::{Term, external};

/// Inputs that go through a map together.
const MAP_BATCH: usize = 64;
/// Inputs that a reduce gathers at least before its function is called.
const REDUCE_BATCH_MIN: usize = 1000;
/// Reduce calls with more inputs than this are made on a thread of their own.
const REDUCE_INLINE_MAX: usize = 4000;
/// Results that are sent in one frame.
const FRAME_RESULTS_MAX: usize = 1000;
/// Results of about this many bytes are sent without waiting for more.
const FRAME_BYTES: usize = 256 * 1024;
/// Frames that are made ahead of the connection.
const FRAMES_AHEAD: usize = 2;

/// Some results of one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseResults {
    /// The phase, counted from 0.
    pub phase: u32,
    /// A list of results, in the encoding of the job.
    pub response: Bytes,
}

/// Starts a job. Its results come one by one until the channel ends; an error is the last thing that comes. To drop the
/// receiver is to abandon the job. Must be called inside a tokio runtime.
///
/// # Errors
/// When the job cannot be run at all.
pub fn start(
    engine: Engine,
    job: Job,
    options: &MapReduceOptions,
) -> Result<mpsc::Receiver<Result<PhaseResults, JobError>>, JobError> {
    let javascript = options.javascript.clone();
    let stages = plan(job.phases, javascript.is_some())?;
    let patience = job.timeout.min(options.timeout_max);
    // The listing is given longer, so that a job that takes too long is told so in one way.
    let source = Source::open(&engine, job.inputs, patience + Duration::from_secs(1), options.inputs_max)?;
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let budget = Budget::new(options.intermediate_bytes_max);
    let has_query = !stages.is_empty();
    let output = Output { sender: sender.clone(), encoding: job.encoding, has_query, pending: Vec::new() };
    let tasks_max = options.map_tasks_max.max(1);
    tokio::spawn(async move {
        let running = async {
            let stages = load_scripts(&engine, stages).await?;
            let reducers = stages.iter().map(|stage| Reducer::of(stage, javascript.as_ref(), &budget)).collect();
            let stages = stages.into();
            Runner { engine, stages, javascript, reducers, output, budget, tasks_max }.run(source).await
        };
        let ended = tokio::select! {
            ended = timeout(patience, running) => ended.unwrap_or(Err(JobError::Timeout)),
            () = sender.closed() => return,
        };
        if let Err(error) = ended {
            // A connection that is gone does not want to know.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(receiver)
}

/// Reads the functions that are stored in objects.
async fn load_scripts(engine: &Engine, mut stages: Vec<Stage>) -> Result<Vec<Stage>, JobError> {
    for (index, stage) in stages.iter_mut().enumerate() {
        let (Run::ScriptMap { script, .. } | Run::ScriptReduce { script, .. }) = &mut stage.run else { continue };
        let Script::Stored(name) = script else { continue };
        let found = engine.get(name, ReadOptions::default(), None).await;
        let code = found.ok().and_then(|view| view.siblings.into_iter().find(|(_, content)| !content.deleted));
        match code {
            Some((_, content)) => *script = Script::Code(content.value),
            None => {
                let input = key_term(&name.bucket, name.key.clone());
                let fault = javascript::fault("the function's object does not exist");
                return Err(JobError::Failed(Box::new(Failure { phase: phase_number(index), fault, input })));
            }
        }
    }
    Ok(stages)
}

struct Runner {
    engine: Engine,
    stages: Arc<[Stage]>,
    javascript: Option<JavaScript>,
    /// One for each stage that is a reduce.
    reducers: Vec<Option<Reducer>>,
    output: Output,
    budget: Budget,
    tasks_max: usize,
}

type Pushed<'a> = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send + 'a>>;

impl Runner {
    async fn run(mut self, mut source: Source) -> Result<(), JobError> {
        while let Some(inputs) = source.next().await? {
            if self.stages.is_empty() {
                self.output.emit(0, inputs).await?;
            } else {
                self.push(0, self.budget.batch(inputs)?).await?;
            }
        }
        for index in 0..self.stages.len() {
            if let Some(reducer) = self.reducers[index].take() {
                let reduced = reducer.finish(phase_number(index)).await?;
                self.hand_on(index, reduced).await?;
            }
        }
        self.output.flush_all().await
    }

    /// Puts a batch into a stage. Boxed because a stage pushes into the next.
    fn push(&mut self, index: usize, batch: Batch) -> Pushed<'_> {
        Box::pin(async move {
            if let Some(reducer) = self.reducers.get_mut(index).and_then(Option::as_mut) {
                return reducer.add(batch, phase_number(index)).await;
            }
            // The charge of the whole batch is held until its last part is through.
            let Batch { terms, charge: _charge } = batch;
            let mut terms = terms.into_iter();
            loop {
                let inputs: Vec<_> = terms.by_ref().take(MAP_BATCH).collect();
                if inputs.is_empty() {
                    return Ok(());
                }
                let mapped = self.map(index, inputs).await?;
                self.hand_on(index, mapped).await?;
            }
        })
    }

    /// Sends what a stage has made to whoever wants it: the client, the next stage, or both.
    async fn hand_on(&mut self, index: usize, batch: Batch) -> Result<(), JobError> {
        let keep = self.stages[index].keep;
        if index + 1 == self.stages.len() {
            return if keep { self.output.emit(index, batch.terms).await } else { Ok(()) };
        }
        if keep {
            self.output.emit(index, batch.terms.clone()).await?;
        }
        if batch.terms.is_empty() { Ok(()) } else { self.push(index + 1, batch).await }
    }

    /// Maps some inputs in parallel. What is made comes in the order of the inputs.
    async fn map(&self, index: usize, inputs: Vec<Term>) -> Result<Batch, JobError> {
        let share = inputs.len().div_ceil(self.tasks_max);
        if share == inputs.len() {
            return map_share(&self.engine, &self.stages, &self.javascript, index, inputs, self.budget.charge()).await;
        }
        // Dropping the set ends its tasks, so nothing goes on after an error or a timeout.
        let mut tasks = JoinSet::new();
        let mut inputs = inputs.into_iter();
        for number in 0.. {
            let share: Vec<_> = inputs.by_ref().take(share).collect();
            if share.is_empty() {
                break;
            }
            let (engine, stages, charge) = (self.engine.clone(), self.stages.clone(), self.budget.charge());
            let javascript = self.javascript.clone();
            tasks.spawn(async move { (number, map_share(&engine, &stages, &javascript, index, share, charge).await) });
        }
        let mut shares = Vec::with_capacity(tasks.len());
        while let Some(joined) = tasks.join_next().await {
            let (number, share): (usize, _) = joined.map_err(|_| JobError::Interrupted)?;
            shares.push((number, share?));
        }
        shares.sort_by_key(|(number, _)| *number);
        let mut all = Batch { terms: Vec::new(), charge: self.budget.charge() };
        for (_, share) in shares {
            all.terms.extend(share.terms);
            all.charge.absorb(share.charge);
        }
        Ok(all)
    }
}

async fn map_share(
    engine: &Engine,
    stages: &[Stage],
    javascript: &Option<JavaScript>,
    index: usize,
    inputs: Vec<Term>,
    mut charge: Charge,
) -> Result<Batch, JobError> {
    let mut terms = Vec::new();
    let (function, arg) = match (stages.get(index).map(|stage| &stage.run), javascript) {
        (Some(Run::Map { function, arg }), _) => (function, arg),
        (Some(Run::ScriptMap { script, arg }), Some(javascript)) => {
            return map_by_script(engine, javascript, script, arg, inputs, phase_number(index), charge).await;
        }
        _ => return Err(JobError::Interrupted),
    };
    for input in inputs {
        // A store that has the object at hand never waits, and a job must leave room for others and for its timeout.
        tokio::task::consume_budget().await;
        let mapped = map_one(engine, function, arg, input, phase_number(index)).await?;
        charge.add(&mapped)?;
        terms.extend(mapped);
    }
    Ok(Batch { terms, charge })
}

async fn map_one(
    engine: &Engine,
    function: &MapFunction,
    arg: &Term,
    input: Term,
    phase: u32,
) -> Result<Vec<Term>, JobError> {
    let failed = |fault, input| JobError::Failed(Box::new(Failure { phase, fault, input }));
    let (mapped, view) = read(engine, input, phase).await?;
    let object = match view {
        view if view.typed.is_some() => Mapped::DataType,
        view if view.siblings.is_empty() => Mapped::NotFound,
        view => Mapped::Found(view.siblings.into_iter().map(|(_, content)| content).collect()),
    };
    function.apply(&mapped, &object, arg).map_err(|fault| {
        // What Riak's function was given: the object or the reason for its absence, its name, and its key data.
        let seen = match object {
            Mapped::NotFound => Term::Tuple(vec![Term::atom("error"), Term::atom("notfound")]),
            _ => Term::atom("ok"),
        };
        let bucket = match mapped.bucket.is_default_type() {
            true => Term::Binary(mapped.bucket.bucket.clone()),
            false => Term::Tuple(vec![
                Term::Binary(mapped.bucket.bucket_type.clone()),
                Term::Binary(mapped.bucket.bucket.clone()),
            ]),
        };
        let name = Term::Tuple(vec![bucket, Term::Binary(mapped.key.clone())]);
        failed(fault, Term::Tuple(vec![seen, name, mapped.key_data.clone()]))
    })
}

/// Maps some inputs in one run of JavaScript. Functions are not called for objects that are not there.
async fn map_by_script(
    engine: &Engine,
    javascript: &JavaScript,
    script: &Script,
    arg: &Term,
    inputs: Vec<Term>,
    phase: u32,
    mut charge: Charge,
) -> Result<Batch, JobError> {
    let failed = |fault, input| JobError::Failed(Box::new(Failure { phase, fault, input }));
    let mut reading = charge.another();
    let (mut calls, mut called, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for input in inputs {
        let (mapped, view) = read(engine, input.clone(), phase).await?;
        if view.typed.is_some() {
            return Err(failed(javascript::fault("data types cannot be mapped by JavaScript"), input));
        }
        let name = ObjectName { bucket: mapped.bucket.clone(), key: mapped.key.clone() };
        if view.siblings.is_empty() {
            made.push(vec![javascript::not_found(&name, &mapped)]);
            continue;
        }
        let arguments = [javascript::object(&name, view), mapped.key_data, arg.clone()];
        reading.add(&arguments)?;
        calls.push(arguments);
        called.push((made.len(), input));
        made.push(Vec::new());
    }
    if !calls.is_empty() {
        match javascript.map(code(script), calls).await? {
            Ok(results) => {
                for ((at, _), results) in called.into_iter().zip(results) {
                    made[at] = results;
                }
            }
            Err(broken) => {
                let input = called.into_iter().nth(broken.index).map(|(_, input)| input);
                return Err(failed(broken.fault, input.unwrap_or(Term::atom("undefined"))));
            }
        }
    }
    let terms: Vec<_> = made.into_iter().flatten().collect();
    charge.add(&terms)?;
    Ok(Batch { terms, charge })
}

fn code(script: &Script) -> String {
    match script {
        Script::Code(code) => String::from_utf8_lossy(code).into_owned(),
        // None is left when stages run.
        Script::Stored(_) => String::new(),
    }
}

/// Reads the object that an input names.
async fn read(engine: &Engine, input: Term, phase: u32) -> Result<(MapInput, ObjectView), JobError> {
    let failed = |reason, place, input| {
        let fault = Fault { reason, class: FaultClass::Error, place };
        JobError::Failed(Box::new(Failure { phase, fault, input }))
    };
    let Some(mapped) = MapInput::of(&input) else {
        return Err(failed(Term::atom("function_clause"), ("bkey", 1), input));
    };
    let name = ObjectName { bucket: mapped.bucket.clone(), key: mapped.key.clone() };
    match engine.get(&name, ReadOptions::default(), None).await {
        Ok(view) => Ok((mapped, view)),
        Err(error) => {
            let reason = match &error {
                EngineError::NoSuchType => Term::atom("no_type"),
                other => Term::binary(other.to_string().as_bytes()),
            };
            Err(failed(reason, ("get", 2), input))
        }
    }
}

/// A reduce phase at work.
///
/// Riak calls the function after every 20 inputs, on what it made before and on those. The built-in functions give the same
/// result for batches of any size, so they are called when the inputs have doubled: the work stays in proportion to them.
/// A script may count its batches. It is run as often, and calls its function batch by batch.
struct Reducer {
    function: Reduce,
    budget: Budget,
    /// Inputs that have come since the function was called; before them what a built-in function made, or what filled no
    /// batch of a script.
    terms: Vec<Term>,
    charge: Charge,
    /// How many of them the function has been offered already.
    offered: usize,
}

enum Reduce {
    BuiltIn(ReduceFunction),
    Script { javascript: JavaScript, call: ReduceCall, reduction: Reduction },
}

impl Reducer {
    fn of(stage: &Stage, javascript: Option<&JavaScript>, budget: &Budget) -> Option<Self> {
        let function = match (&stage.run, javascript) {
            (Run::Reduce(function), _) => Reduce::BuiltIn(*function),
            (Run::ScriptReduce { script, arg }, Some(javascript)) => Reduce::Script {
                javascript: javascript.clone(),
                call: ReduceCall { code: code(script), arg: arg.clone() },
                reduction: Reduction::default(),
            },
            _ => return None,
        };
        Some(Self { function, budget: budget.clone(), terms: Vec::new(), charge: budget.charge(), offered: 0 })
    }

    async fn add(&mut self, batch: Batch, phase: u32) -> Result<(), JobError> {
        self.terms.extend(batch.terms);
        self.charge.absorb(batch.charge);
        let pending = self.terms.len() - self.offered;
        if pending >= self.offered.max(REDUCE_BATCH_MIN) { self.reduce(phase, false).await } else { Ok(()) }
    }

    async fn reduce(&mut self, phase: u32, ends: bool) -> Result<(), JobError> {
        let failed = |fault, input| JobError::Failed(Box::new(Failure { phase, fault, input }));
        let inputs = std::mem::take(&mut self.terms);
        let mut charge = self.budget.charge();
        match &mut self.function {
            Reduce::BuiltIn(function) => {
                let function = *function;
                let reduced = if inputs.len() > REDUCE_INLINE_MAX {
                    let reduced = tokio::task::spawn_blocking(move || function.apply(inputs)).await;
                    reduced.map_err(|_| JobError::Interrupted)?
                } else {
                    function.apply(inputs)
                };
                self.terms = reduced.map_err(|rejection| failed(rejection.0, rejection.1))?;
            }
            Reduce::Script { javascript, call, reduction } => {
                // Keys that come straight from the job's inputs are lists in JSON.
                let inputs = inputs.into_iter().map(|input| match input {
                    Term::Tuple(_) => input_as_list(input),
                    other => other,
                });
                let reduced = javascript.reduce(call.clone(), std::mem::take(reduction), inputs.collect(), ends);
                let reduced = reduced.await?.map_err(|fault| failed(fault, Term::List(Vec::new())))?;
                (*reduction, self.terms) = reduced;
                self.charge = self.budget.charge();
                charge.add(&reduction.made)?;
            }
        }
        // What went in is no longer there, so it is given back first.
        self.charge = self.budget.charge();
        charge.add(&self.terms)?;
        self.charge.absorb(charge);
        self.offered = self.terms.len();
        Ok(())
    }

    /// The result. A function that got no inputs is called once without any.
    async fn finish(mut self, phase: u32) -> Result<Batch, JobError> {
        self.reduce(phase, true).await?;
        let terms = match self.function {
            Reduce::BuiltIn(_) => self.terms,
            Reduce::Script { reduction, .. } => reduction.made,
        };
        Ok(Batch { terms, charge: self.charge })
    }
}

/// Gathers results by phase and sends them. A frame holds results of one phase.
struct Output {
    sender: mpsc::Sender<Result<PhaseResults, JobError>>,
    encoding: Encoding,
    /// Whether there are phases. Without, the results are the inputs, which JSON shows as lists.
    has_query: bool,
    pending: Vec<Pending>,
}

struct Pending {
    phase: usize,
    results: Vec<Term>,
    bytes: usize,
}

impl Output {
    async fn emit(&mut self, phase: usize, results: Vec<Term>) -> Result<(), JobError> {
        let at = match self.pending.iter().position(|pending| pending.phase == phase) {
            Some(at) => at,
            None => {
                self.pending.push(Pending { phase, results: Vec::new(), bytes: 0 });
                self.pending.len() - 1
            }
        };
        for result in results {
            let pending = &mut self.pending[at];
            pending.bytes += result.size_bytes();
            pending.results.push(result);
            if pending.results.len() >= FRAME_RESULTS_MAX || pending.bytes >= FRAME_BYTES {
                self.flush(at).await?;
            }
        }
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), JobError> {
        self.pending.sort_by_key(|pending| pending.phase);
        for at in 0..self.pending.len() {
            self.flush(at).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, at: usize) -> Result<(), JobError> {
        let pending = &mut self.pending[at];
        let results = std::mem::take(&mut pending.results);
        pending.bytes = 0;
        if results.is_empty() {
            return Ok(());
        }
        let phase = phase_number(pending.phase);
        let response = match self.encoding {
            Encoding::Json if self.has_query => json::render_list(&results)?.into(),
            Encoding::Json => json::render_list(&results.into_iter().map(input_as_list).collect::<Vec<_>>())?.into(),
            Encoding::Term => external::encode_list(&results)?.into(),
        };
        // The job is ended where the receiver is watched, if it is gone.
        let _ = self.sender.send(Ok(PhaseResults { phase, response })).await;
        Ok(())
    }
}

/// An input as a list: `[B,K]`, `[B,K,Data]` or `[B,K,Data,T]`.
fn input_as_list(input: Term) -> Term {
    let Some(MapInput { bucket, key, key_data }) = MapInput::of(&input) else { return input };
    let mut parts = vec![Term::Binary(bucket.bucket.clone()), Term::Binary(key)];
    let has_data = !key_data.is_atom("undefined");
    if !bucket.is_default_type() {
        parts.push(if has_data { key_data } else { Term::atom("null") });
        parts.push(Term::Binary(bucket.bucket_type));
    } else if has_data {
        parts.push(key_data);
    }
    Term::List(parts)
}

fn phase_number(index: usize) -> u32 {
    // Phases are far fewer.
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::datatype::limits::UpdateLimits;
    use crate::domain::dot::ActorId;
    use crate::domain::key::BucketName;
    use crate::domain::object::{Content, Link, ObjectLimits, PutCondition};
    use crate::engine::{DeleteMode, EngineOptions, PutRequest, WriteOptions};
    use crate::erlang::external::TermLimits;
    use crate::mapreduce::{JavaScriptLimits, PhaseRefusal, SendingError};
    use crate::store::memory::MemoryStore;

    async fn engine() -> Engine {
        let limits = ObjectLimits { siblings_max: 100, object_size_bytes_max: 1_000_000 };
        let options = EngineOptions {
            delete_mode: DeleteMode::Keep,
            object_limits: limits,
            key_size_bytes_max: 1000,
            context_actors_max: 4096,
            update_limits: UpdateLimits {
                elements_max: 1000,
                member_size_bytes_max: 1000,
                field_name_size_bytes_max: 1000,
                names_size_bytes_max: usize::MAX,
            },
            object_warnings: limits,
            n_val_default: 3,
            create_default_types: true,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(60),
        };
        Engine::start(Arc::new(MemoryStore::new(ActorId(1))), options).await.unwrap()
    }

    async fn put(engine: &Engine, key: &str, value: String, links: &[(&'static str, &'static str)]) {
        let part = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let link =
            |&(key, tag): &(&'static str, &'static str)| Link { bucket: part("b"), key: part(key), tag: part(tag) };
        let request = PutRequest {
            content: Content { value: value.into(), links: links.iter().map(link).collect(), ..Content::default() },
            context: None,
            condition: PutCondition::default(),
            options: WriteOptions::default(),
            return_view: false,
        };
        let bucket = BucketName::new(None, "b".into());
        engine.put(&ObjectName { bucket, key: Bytes::copy_from_slice(key.as_bytes()) }, request, None).await.unwrap();
    }

    /// A bucket with the numbers below `count`.
    async fn numbers(count: usize) -> Engine {
        let engine = engine().await;
        for number in 0..count {
            put(&engine, &format!("k{number:05}"), number.to_string(), &[]).await;
        }
        engine
    }

    fn job(text: &str) -> Job {
        let limits = TermLimits { depth_max: 64, terms_max: 1000 };
        Job::parse(&Bytes::copy_from_slice(text.as_bytes()), &"application/json".into(), limits).unwrap()
    }

    fn phase(kind: &str, function: &str, more: &str) -> String {
        format!(r#"{{"{kind}":{{"language":"erlang","module":"riak_kv_mapreduce","function":"{function}"{more}}}}}"#)
    }

    fn job_on(inputs: &str, phases: &[String]) -> Job {
        job(&format!(r#"{{"inputs":{inputs},"query":[{}]}}"#, phases.join(",")))
    }

    async fn collect(
        mut receiver: mpsc::Receiver<Result<PhaseResults, JobError>>,
    ) -> Result<Vec<(u32, Vec<serde_json::Value>)>, JobError> {
        let mut frames = Vec::new();
        while let Some(frame) = receiver.recv().await {
            let frame = frame?;
            frames.push((frame.phase, serde_json::from_slice(&frame.response).unwrap()));
        }
        Ok(frames)
    }

    async fn run(
        engine: &Engine,
        job: Job,
        options: &MapReduceOptions,
    ) -> Result<Vec<(u32, serde_json::Value)>, JobError> {
        let frames = collect(start(engine.clone(), job, options)?).await?;
        Ok(frames.into_iter().map(|(phase, results)| (phase, results.into())).collect())
    }

    async fn run_on(
        inputs: &str,
        phases: &[String],
        engine: &Engine,
    ) -> Result<Vec<(u32, serde_json::Value)>, JobError> {
        run(engine, job_on(inputs, phases), &MapReduceOptions::default()).await
    }

    #[tokio::test]
    async fn values_come_in_the_order_of_their_keys_and_in_frames() {
        let engine = numbers(2500).await;
        let options = MapReduceOptions::default();
        let job = job_on(r#""b""#, &[phase("map", "map_object_value", "")]);
        let frames = collect(start(engine, job, &options).unwrap()).await.unwrap();
        assert_eq!(frames.iter().map(|(_, results)| results.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
        let values: Vec<_> = frames.into_iter().flat_map(|(_, results)| results).collect();
        let want: Vec<_> = (0..2500).map(|number| serde_json::Value::from(number.to_string())).collect();
        assert_eq!(values, want);
    }

    #[tokio::test]
    async fn reduces_gather_everything_and_phases_that_are_kept_are_sent_apart() {
        let engine = numbers(6000).await;
        let phases = [
            phase("map", "map_object_value", ""),
            phase("reduce", "reduce_string_to_integer", ""),
            phase("reduce", "reduce_sum", r#","keep":true"#),
            phase("reduce", "reduce_count_inputs", ""),
        ];
        let sum: i64 = (0..6000).sum();
        // The sum is an integer, and so counts for what it says.
        let want = vec![(2, serde_json::json!([sum])), (3, serde_json::json!([sum]))];
        assert_eq!(run_on(r#""b""#, &phases, &engine).await.unwrap(), want);
    }

    #[tokio::test]
    async fn a_reduce_without_inputs_runs_once() {
        let engine = engine().await;
        let sums = run_on(r#""b""#, &[phase("reduce", "reduce_sum", "")], &engine).await.unwrap();
        assert_eq!(sums, vec![(0, serde_json::json!([0]))]);
        assert_eq!(run_on(r#""b""#, &[phase("reduce", "reduce_sort", "")], &engine).await.unwrap(), vec![]);
    }

    #[tokio::test]
    async fn links_are_walked() {
        let engine = engine().await;
        put(&engine, "a", "1".into(), &[("b", "next"), ("c", "other"), ("missing", "next")]).await;
        put(&engine, "b", "2".into(), &[]).await;
        let link = r#"{"link":{"tag":"next","keep":true}}"#.to_owned();
        let value = phase("map", "map_object_value", r#","arg":"include_keydata""#);
        let found = run_on(r#"[["b","a"]]"#, &[link, value], &engine).await.unwrap();
        let links = serde_json::json!([["b", "b", "next"], ["b", "missing", "next"]]);
        assert_eq!(found, vec![(0, links), (1, serde_json::json!(["2", "next"]))]);
    }

    #[tokio::test]
    async fn without_phases_the_inputs_are_the_results() {
        let engine = engine().await;
        let inputs = r#"[["b","k"],["b","k",{"a":1}],["b","k",null,"t"]]"#;
        let want = serde_json::json!([["b", "k"], ["b", "k", {"a": 1}], ["b", "k", null, "t"]]);
        assert_eq!(run_on(inputs, &[], &engine).await.unwrap(), vec![(0, want)]);
    }

    #[tokio::test]
    async fn listed_keys_can_be_filtered() {
        let engine = numbers(30).await;
        let count = [phase("reduce", "reduce_count_inputs", "")];
        let counted = |number: i64| vec![(0, serde_json::json!([number]))];
        let filtered = r#"{"bucket":"b","key_filters":[["starts_with","k0001"]]}"#;
        assert_eq!(run_on(filtered, &count, &engine).await.unwrap(), counted(10));
        let all = r#"{"bucket":"b","index":"$bucket","key":"_"}"#;
        assert_eq!(run_on(all, &count, &engine).await.unwrap(), counted(30));
        let range = r#"{"bucket":"b","index":"$key","start":"k00003","end":"k00005"}"#;
        assert_eq!(run_on(range, &count, &engine).await.unwrap(), counted(3));
        let failing = r#"{"bucket":"b","key_filters":[["string_to_int"]]}"#;
        let failed = run_on(failing, &count, &engine).await;
        assert!(matches!(failed, Err(JobError::Sending(SendingError::Filter(_)))), "{failed:?}");
    }

    #[tokio::test]
    async fn inputs_that_cannot_be_had_are_refused_at_once() {
        let engine = engine().await;
        let sending = |inputs| {
            let job = job_on(inputs, &[]);
            match start(engine.clone(), job, &MapReduceOptions::default()) {
                Err(JobError::Sending(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(sending(r#"["no-such-type","b"]"#), SendingError::NoSuchType(_)));
        assert!(matches!(sending(r#"{"bucket":["none","b"],"index":"a_bin","key":"x"}"#), SendingError::NoSuchType(_)));
        assert!(matches!(sending(r#"{"bucket":"b","query":"x"}"#), SendingError::SearchUnavailable));
        assert!(matches!(sending(r#"{"module":"m","function":"f","arg":1}"#), SendingError::Function { .. }));
        assert!(matches!(sending(r#"{"bucket":"b","key_filters":[["nope"]]}"#), SendingError::Filter(_)));
        let refused = start(engine, job_on(r#""b""#, &[phase("map", "nope", "")]), &MapReduceOptions::default());
        let reason = PhaseRefusal::NotExported { module: "riak_kv_mapreduce".into(), function: "nope".into() };
        assert!(matches!(refused, Err(JobError::Phase { reason: found, .. }) if found == reason));
    }

    #[tokio::test]
    async fn a_function_that_fails_ends_the_job() {
        let engine = numbers(3).await;
        let value = [phase("map", "map_object_value", "")];
        let reason = |result: Result<_, JobError>| match result {
            Err(JobError::Failed(failure)) => (failure.phase, failure.fault.reason),
            other => panic!("{:?}", other.map(|_: Vec<(u32, serde_json::Value)>| ())),
        };
        let missing = run_on(r#"[["b","k00000"],["b","missing"]]"#, &value, &engine).await;
        assert_eq!(reason(missing), (0, Term::atom("function_clause")));
        let unknown = run_on(r#"[["b","k",null,"no-such-type"]]"#, &value, &engine).await;
        assert_eq!(reason(unknown), (0, Term::atom("no_type")));
        let twice = [phase("map", "map_object_value", ""), phase("map", "map_object_value", "")];
        assert_eq!(reason(run_on(r#""b""#, &twice, &engine).await), (1, Term::atom("function_clause")));
        let sum = [phase("map", "map_object_value", ""), phase("reduce", "reduce_sum", "")];
        assert_eq!(reason(run_on(r#""b""#, &sum, &engine).await), (1, Term::atom("badarith")));
        let object = run_on(r#""b""#, &[phase("map", "map_identity", "")], &engine).await;
        assert!(matches!(object, Err(JobError::Render(_))), "{object:?}");
    }

    fn javascript(kind: &str, more: &str) -> String {
        format!(r#"{{"{kind}":{{"language":"javascript",{more}}}}}"#)
    }

    fn with_javascript() -> MapReduceOptions {
        let limits = JavaScriptLimits {
            batch_timeout: Duration::from_secs(60),
            memory_bytes_max: 16 * 1024 * 1024,
            terms_max: 100_000,
            engines_max: 2,
        };
        MapReduceOptions { javascript: Some(JavaScript::new(limits)), ..MapReduceOptions::default() }
    }

    #[tokio::test]
    async fn javascript_maps_and_reduces_where_it_is_run() {
        let engine = numbers(3000).await;
        put(&engine, "source", "function(v) { return [v.key] }".into(), &[]).await;
        let options = with_javascript();
        let run = async |inputs, phases: &[String]| run(&engine, job_on(inputs, phases), &options).await;
        let numbers = r#"{"bucket":"b","key_filters":[["starts_with","k"]]}"#;
        let values = javascript("map", r#""name":"Riak.mapValuesJson""#);
        let sum = javascript("reduce", r#""name":"Riak.reduceSum""#);
        let total: i64 = (0..3000).sum();
        assert_eq!(run(numbers, &[values.clone(), sum]).await.unwrap(), vec![(1, serde_json::json!([total]))]);
        let native = phase("reduce", "reduce_count_inputs", "");
        assert_eq!(run(numbers, &[values, native]).await.unwrap(), vec![(1, serde_json::json!([total]))]);
        // A missing object is a marker, and keeps its place.
        let three = r#"[["b","k00001"],["b","nope","data"],["b","k00002"]]"#;
        let stored = javascript("map", r#""bucket":"b","key":"source""#);
        let marker = serde_json::json!({"not_found": {"bucket": "b", "key": "nope", "keydata": "data"}});
        let found = run(three, &[stored]).await.unwrap();
        assert_eq!(found, vec![(0, serde_json::json!(["k00001", marker, "k00002"]))]);
        let keys = javascript("reduce", r#""source":"values => values.map(pair => pair[1] || pair)""#);
        let listed = run(r#"[["b","x"],["b","y"]]"#, &[keys]).await.unwrap();
        assert_eq!(listed, vec![(0, serde_json::json!(["x", "y"]))]);
    }

    #[tokio::test]
    async fn javascript_that_fails_names_its_phase_and_input() {
        let engine = numbers(100).await;
        let options = with_javascript();
        let failure = async |inputs, phase: String| match run(&engine, job_on(inputs, &[phase]), &options).await {
            Err(JobError::Failed(failure)) => *failure,
            other => panic!("{other:?}"),
        };
        let source = r#""source":"function(v) { if (v.key == 'k00050') throw 'no'; return [] }""#;
        let thrown = failure(r#""b""#, javascript("map", source)).await;
        assert_eq!(thrown.fault.reason, Term::binary(b"no"));
        assert_eq!(MapInput::of(&thrown.input).unwrap().key, "k00050");
        let missing = failure(r#""b""#, javascript("reduce", r#""bucket":"b","key":"nope""#)).await;
        assert_eq!(missing.fault.reason, Term::binary(b"the function's object does not exist"));
        let refused =
            start(engine.clone(), job_on(r#""b""#, &[javascript("map", source)]), &MapReduceOptions::default());
        assert!(matches!(refused, Err(JobError::Phase { reason: PhaseRefusal::NotCallable, .. })));
    }

    #[tokio::test]
    async fn javascript_stops_when_nobody_waits() {
        let engine = numbers(1).await;
        let options = with_javascript();
        let forever = || job_on(r#""b""#, &[javascript("map", r#""source":"function() { for (;;) {} }""#)]);
        let hurried = Job { timeout: Duration::from_millis(10), ..forever() };
        assert!(matches!(run(&engine, hurried, &options).await, Err(JobError::Timeout)));
        drop(start(engine.clone(), forever(), &options).unwrap());
        // Both engines are free again long before the time of a batch is over.
        let ones = javascript("map", r#""source":"v => [1]""#);
        assert_eq!(run(&engine, job_on(r#""b""#, &[ones]), &options).await.unwrap(), vec![(0, serde_json::json!([1]))]);
    }

    #[tokio::test]
    async fn a_job_keeps_within_its_limits() {
        let engine = numbers(3000).await;
        let options = MapReduceOptions { inputs_max: 2999, ..MapReduceOptions::default() };
        let values = || job_on(r#""b""#, &[phase("map", "map_object_value", r#","keep":false"#)]);
        assert!(matches!(run(&engine, values(), &options).await, Err(JobError::TooManyInputs { max: 2999 })));
        // Enough for a page of inputs and a batch of values, and so for any number of values that are not gathered.
        let options = MapReduceOptions { intermediate_bytes_max: 300_000, ..MapReduceOptions::default() };
        assert_eq!(run(&engine, values(), &options).await.unwrap(), vec![]);
        let gathered = job_on(r#""b""#, &[phase("reduce", "reduce_sort", "")]);
        let refused = run(&engine, gathered, &options).await;
        assert!(matches!(refused, Err(JobError::TooMuchMemory { max: 300_000 })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_job_ends_at_its_timeout_or_when_nobody_waits() {
        let engine = numbers(5000).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let values = || job_on(r#""b""#, &[phase("map", "map_object_value", "")]);
        let hurried = Job { timeout: Duration::ZERO, ..values() };
        let hurried = collect(start(engine.clone(), hurried, &MapReduceOptions::default()).unwrap()).await;
        assert!(matches!(hurried, Err(JobError::Timeout)), "{hurried:?}");
        let mut receiver = start(engine, values(), &MapReduceOptions::default()).unwrap();
        assert!(receiver.recv().await.unwrap().is_ok());
        assert!(tasks() > before);
        drop(receiver);
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    }
}
