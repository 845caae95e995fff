//! JavaScript functions, as Riak 2 ran them.
//!
//! Every batch of calls has an engine of its own, so nothing that a function leaves behind is seen by another job. An engine
//! has bounded memory, stack and time. It has no files, no network, no modules and no clock: what is not in `builtin.js` or
//! the language is not there.

mod object;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rquickjs::context::EvalOptions;
use rquickjs::context::intrinsic::{Date, Eval, Json, MapSet, Promise, RegExp, RegExpCompiler};
use rquickjs::function::Args;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, FromJs, Function, Runtime, Value};
use tokio::sync::Semaphore;

use super::error::{Fault, FaultClass, JobError};
use super::json;
use crate::erlang::Term;

pub(super) use self::object::{not_found, object};

/// What every engine begins with.
const BUILTIN: &str = include_str!("builtin.js");
/// The loop of reduce phases.
const REDUCE: &str = include_str!("reduce.js");
/// The stack of an engine: a quarter of what its thread has.
const STACK_BYTES_MAX: usize = 512 * 1024;

/// Bounds on JavaScript functions.
#[derive(Clone, Copy, Debug)]
pub struct JavaScriptLimits {
    /// How long the calls of one batch may take together.
    pub batch_timeout: Duration,
    /// The most memory that an engine may have.
    pub memory_bytes_max: usize,
    /// The most values that the results of a batch may consist of.
    pub terms_max: usize,
    /// How many engines there are at a time, over all jobs.
    pub engines_max: usize,
}

/// Runs JavaScript functions. Cloning gives another handle to the same engines.
#[derive(Clone, Debug)]
pub struct JavaScript {
    limits: JavaScriptLimits,
    engines: Arc<Semaphore>,
}

/// A reduce phase between two batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Reduction {
    /// What the function made last.
    pub(super) made: Vec<Term>,
    /// Whether it was called at all.
    pub(super) called: bool,
}

/// How a reduce function is called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReduceCall {
    /// An expression that gives the function.
    pub(super) code: String,
    pub(super) arg: Term,
}

/// A call that failed: which of the batch, and how.
pub(super) struct Failed {
    pub(super) index: usize,
    pub(super) fault: Fault,
}

impl JavaScript {
    /// Engines within these bounds.
    pub fn new(limits: JavaScriptLimits) -> Self {
        Self { limits, engines: Arc::new(Semaphore::new(limits.engines_max.max(1))) }
    }

    /// Calls a map function with each of these arguments. What it makes comes in their order.
    pub(super) async fn map(
        &self,
        code: String,
        arguments: Vec<[Term; 3]>,
    ) -> Result<Result<Vec<Vec<Term>>, Failed>, JobError> {
        let texts = arguments.iter().map(|arguments| {
            Ok([json::render(&arguments[0])?, json::render(&arguments[1])?, json::render(&arguments[2])?])
        });
        let texts: Vec<[String; 3]> = texts.collect::<Result<_, JobError>>()?;
        let terms_max = self.limits.terms_max;
        self.run(move |engine| {
            let failed = |index| move |fault| Failed { index, fault };
            let function = engine.function(&code).map_err(failed(0))?;
            let mut all = Vec::with_capacity(texts.len());
            for (index, arguments) in texts.into_iter().enumerate() {
                let made = engine.call(&function, &arguments).map_err(failed(index))?;
                all.push(list(&made, terms_max).map_err(failed(index))?);
            }
            Ok(all)
        })
        .await
    }

    /// Goes on with a reduce phase. Gives the inputs back that are left over.
    pub(super) async fn reduce(
        &self,
        call: ReduceCall,
        reduction: Reduction,
        inputs: Vec<Term>,
        ends: bool,
    ) -> Result<Result<(Reduction, Vec<Term>), Fault>, JobError> {
        let size = batch_size(&call.arg, inputs.len(), ends);
        let truth = |value| if value { "true" } else { "false" }.to_owned();
        let arguments = [
            json::render(&Term::List(reduction.made))?,
            json::render(&Term::List(inputs))?,
            size.to_string(),
            truth(ends),
            truth(!reduction.called),
            json::render(&call.arg)?,
        ];
        let terms_max = self.limits.terms_max;
        let ran = self.run(move |engine| {
            let (reduce, function) = (engine.function(REDUCE)?, engine.function(&call.code)?);
            engine.call_with(&reduce, function.into_value(), &arguments)
        });
        Ok(match ran.await? {
            Err(fault) => Err(fault),
            Ok(text) => match list(&text, terms_max).as_deref() {
                Ok([Term::List(made), Term::List(left), is_first]) => {
                    let called = !is_first.is_atom("true");
                    Ok((Reduction { made: made.clone(), called }, left.clone()))
                }
                Ok(_) => Err(fault("a reduce function must return an array")),
                Err(fault) => Err(fault.clone()),
            },
        })
    }

    /// Runs on a thread of its own with an engine of its own. Dropping the future ends the run.
    async fn run<T>(&self, work: impl for<'js> FnOnce(&Engine<'js>) -> T + Send + 'static) -> Result<T, JobError>
    where
        T: FromFault + Send + 'static,
    {
        let permit = self.engines.clone().acquire_owned().await.map_err(|_| JobError::Interrupted)?;
        let abandoned = Abandoned(Arc::new(AtomicBool::new(false)));
        let (flag, limits) = (abandoned.0.clone(), self.limits);
        let ran = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            evaluate(limits, flag, work)
        });
        let ran = ran.await.map_err(|_| JobError::Interrupted)?;
        drop(abandoned);
        Ok(ran)
    }
}

/// Tells a run that nobody waits for it.
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A result that can say that the engine itself failed.
trait FromFault {
    fn from_fault(fault: Fault) -> Self;
}

impl<T> FromFault for Result<T, Fault> {
    fn from_fault(fault: Fault) -> Self {
        Err(fault)
    }
}

impl<T> FromFault for Result<T, Failed> {
    fn from_fault(fault: Fault) -> Self {
        Err(Failed { index: 0, fault })
    }
}

fn evaluate<T: FromFault>(
    limits: JavaScriptLimits,
    abandoned: Arc<AtomicBool>,
    work: impl for<'js> FnOnce(&Engine<'js>) -> T,
) -> T {
    let deadline = Instant::now() + limits.batch_timeout;
    let ends = move || abandoned.load(Ordering::Relaxed) || Instant::now() >= deadline;
    let started = Runtime::new().and_then(|runtime| {
        runtime.set_memory_limit(limits.memory_bytes_max);
        runtime.set_max_stack_size(STACK_BYTES_MAX);
        runtime.set_interrupt_handler(Some(Box::new(ends)));
        // Promises are here because `import()` and `async` make some, and the engine aborts where their class is missing.
        Context::custom::<(Date, Eval, RegExpCompiler, RegExp, Json, MapSet, Promise)>(&runtime)
    });
    match started {
        Ok(context) => context.with(|ctx| {
            let engine = Engine { ctx, deadline };
            match engine.begin() {
                Ok(()) => work(&engine),
                Err(fault) => T::from_fault(fault),
            }
        }),
        Err(error) => T::from_fault(fault(&error.to_string())),
    }
}

/// An engine at work.
struct Engine<'js> {
    ctx: Ctx<'js>,
    deadline: Instant,
}

impl<'js> Engine<'js> {
    fn begin(&self) -> Result<(), Fault> {
        self.told(self.evaluate::<()>(BUILTIN))
    }

    /// The function that an expression gives: a name or a source.
    fn function(&self, code: &str) -> Result<Function<'js>, Fault> {
        // Sources may end with a comment, and often do with a semicolon.
        let expression = format!("({}\n)", code.trim_end().trim_end_matches(';'));
        let value: Value<'js> = self.told(self.evaluate(&expression))?;
        value.into_function().ok_or_else(|| fault(&format!("no function: {code}")))
    }

    fn evaluate<T: FromJs<'js>>(&self, code: &str) -> rquickjs::Result<T> {
        // Functions were written for an engine that was not strict.
        let mut options = EvalOptions::default();
        options.strict = false;
        self.ctx.eval_with_options(code, options)
    }

    /// Calls a function with arguments in JSON. The result is in JSON.
    fn call(&self, function: &Function<'js>, arguments: &[String]) -> Result<String, Fault> {
        self.told(self.apply(function, None, arguments))
    }

    /// The same with a first argument that has no form in JSON.
    fn call_with(&self, function: &Function<'js>, first: Value<'js>, rest: &[String]) -> Result<String, Fault> {
        self.told(self.apply(function, Some(first), rest))
    }

    fn apply(&self, function: &Function<'js>, first: Option<Value<'js>>, rest: &[String]) -> rquickjs::Result<String> {
        let mut args = Args::new(self.ctx.clone(), rest.len() + usize::from(first.is_some()));
        if let Some(first) = first {
            args.push_arg(first)?;
        }
        for argument in rest {
            args.push_arg(self.ctx.json_parse(argument.as_str())?)?;
        }
        let result: Value<'js> = function.call_arg(args)?;
        match self.ctx.json_stringify(result)? {
            Some(text) => text.to_string(),
            // `undefined` has no form in JSON.
            None => Ok("null".to_owned()),
        }
    }

    /// What was thrown, as the job is told it.
    fn told<T>(&self, result: rquickjs::Result<T>) -> Result<T, Fault> {
        result.catch(&self.ctx).map_err(|error| {
            if Instant::now() >= self.deadline {
                return fault("timeout: the function ran too long");
            }
            let text = match &error {
                CaughtError::Exception(exception) => {
                    let name = exception.get::<_, String>("name").unwrap_or_default();
                    format!("{name}: {}", exception.message().unwrap_or_default())
                }
                CaughtError::Value(value) => match value.as_string().and_then(|text| text.to_string().ok()) {
                    Some(text) => text,
                    None => format!("{value:?}"),
                },
                CaughtError::Error(error) => error.to_string(),
            };
            fault(&text)
        })
    }
}

/// How many inputs a reduce function gets at a time, as its argument says.
fn batch_size(arg: &Term, inputs: usize, ends: bool) -> usize {
    /// Riak's own.
    const DEFAULT: usize = 20;
    let Some(arg) = json::Object::of(arg) else { return DEFAULT };
    if arg.get("reduce_phase_only_1").is_some_and(|only| only.is_atom("true")) {
        // Never full before the end.
        return if ends { inputs.max(1) } else { usize::MAX };
    }
    match arg.get("reduce_phase_batch_size") {
        Some(Term::Integer(size @ 1..)) => usize::try_from(*size).unwrap_or(usize::MAX),
        _ => DEFAULT,
    }
}

/// The terms of a JSON list.
fn list(text: &str, terms_max: usize) -> Result<Vec<Term>, Fault> {
    match json::parse(text.as_bytes(), terms_max) {
        Ok(Term::List(terms)) => Ok(terms),
        Ok(_) => Err(fault("a function must return an array")),
        Err(error) => Err(fault(&error.to_string())),
    }
}

/// A fault of JavaScript, told in this text.
pub(super) fn fault(reason: &str) -> Fault {
    Fault { reason: Term::binary(reason.as_bytes()), class: FaultClass::Error, place: ("javascript", 3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JavaScriptLimits = JavaScriptLimits {
        batch_timeout: Duration::from_secs(60),
        memory_bytes_max: 8 * 1024 * 1024,
        terms_max: 10_000,
        engines_max: 2,
    };

    fn term(text: &str) -> Term {
        json::parse(text.as_bytes(), 10_000).unwrap()
    }

    fn none() -> Term {
        Term::atom("none")
    }

    async fn map_within(limits: JavaScriptLimits, code: &str, arguments: &[[&str; 2]]) -> Result<String, String> {
        let arguments = arguments.iter().map(|[object, arg]| [term(object), Term::atom("undefined"), term(arg)]);
        match JavaScript::new(limits).map(code.into(), arguments.collect()).await.unwrap() {
            Ok(made) => Ok(json::render_list(&made.into_iter().flatten().collect::<Vec<_>>()).unwrap()),
            Err(failed) => Err(String::from_utf8(failed.fault.reason.as_binary().unwrap().to_vec()).unwrap()),
        }
    }

    async fn map(code: &str, object: &str, arg: &str) -> Result<String, String> {
        map_within(LIMITS, code, &[[object, arg]]).await
    }

    async fn reduce(code: &str, inputs: &str, arg: Term) -> Result<String, String> {
        let Term::List(inputs) = term(inputs) else { panic!("a list") };
        let call = ReduceCall { code: code.into(), arg };
        match JavaScript::new(LIMITS).reduce(call, Reduction::default(), inputs, true).await.unwrap() {
            Ok((reduction, left)) => {
                assert!(left.is_empty() && reduction.called);
                Ok(json::render_list(&reduction.made).unwrap())
            }
            Err(fault) => Err(String::from_utf8(fault.reason.as_binary().unwrap().to_vec()).unwrap()),
        }
    }

    #[tokio::test]
    async fn functions_are_named_or_written_out() {
        let object = r#"{"key":"k","values":[{"data":"{\"a\":1}"}]}"#;
        assert_eq!(map("Riak.mapValues", object, "1").await.unwrap(), r#"["{\"a\":1}"]"#);
        assert_eq!(map("Riak.mapValuesJson", object, "1").await.unwrap(), r#"[{"a":1}]"#);
        assert_eq!(map("Riak.mapByFields", object, r#"{"a":1}"#).await.unwrap(), r#"[{"a":1}]"#);
        assert_eq!(map("Riak.mapByFields", object, r#"{"a":2}"#).await.unwrap(), "[]");
        assert_eq!(
            map("function(v, d, arg) { return [v.key, d, arg] }; ", object, "[5]").await.unwrap(),
            r#"["k","undefined",[5]]"#
        );
        let both = map_within(LIMITS, "v => [v] // a comment", &[["1", "1"], ["2", "1"]]).await;
        assert_eq!(both.unwrap(), "[1,2]");
    }

    #[tokio::test]
    async fn built_in_reduces_do_what_riaks_do() {
        let marker = r#"{"not_found":{"bucket":"b","key":"k","keydata":"undefined"}}"#;
        let mixed = format!("[3,{marker},10]");
        for (code, inputs, want) in [
            ("Riak.reduceSum", &*mixed, "[13]"),
            ("Riak.reduceSum", "[]", "[0]"),
            ("Riak.filterNotFound", &*mixed, "[3,10]"),
            ("Riak.reduceMin", "[3,1,10]", "[1]"),
            ("Riak.reduceMin", "[]", "[]"),
            ("Riak.reduceMax", "[3,1,10]", "[10]"),
            ("Riak.reduceMax", "[]", "[]"),
            ("Riak.reduceSort", "[3,1,10]", "[1,10,3]"),
            ("Riak.reduceNumericSort", "[3,1,10]", "[1,3,10]"),
        ] {
            assert_eq!(reduce(code, inputs, none()).await.unwrap(), want, "{code} {inputs}");
        }
        let comparator = term(r#""function(a, b) { return b - a }""#);
        assert_eq!(reduce("Riak.reduceSort", "[3,1,10]", comparator).await.unwrap(), "[10,3,1]");
        assert_eq!(reduce("Riak.reduceLimit", "[3,1,10]", term("3")).await.unwrap(), "[3,1]");
        assert_eq!(reduce("Riak.reduceSlice", "[3,1,10]", term("[1,2]")).await.unwrap(), "[1]");
        assert_eq!(reduce("Riak.reduceSlice", "[3,1,10]", term("[1,4]")).await.unwrap(), "[3,1,10]");
    }

    #[tokio::test]
    async fn reduces_are_called_batch_by_batch() {
        // How many values each call was given, what it made before among them.
        let sizes = "function(values) { return values.filter(v => v.calls).concat([{calls: values.length}]) }";
        let inputs = format!("[{}]", vec!["1"; 45].join(","));
        let made = reduce(sizes, &inputs, none()).await.unwrap();
        assert_eq!(made, r#"[{"calls":20},{"calls":21},{"calls":7}]"#);
        let only = reduce(sizes, &inputs, term(r#"{"reduce_phase_only_1":true}"#)).await.unwrap();
        assert_eq!(only, r#"[{"calls":45}]"#);
        let sized = reduce(sizes, &inputs, term(r#"{"reduce_phase_batch_size":40}"#)).await.unwrap();
        assert_eq!(sized, r#"[{"calls":40},{"calls":6}]"#);
        assert_eq!(reduce("function() { return [7] }", "[]", none()).await.unwrap(), "[7]");
        // Inputs that fill no batch wait for more.
        let call = ReduceCall { code: sizes.into(), arg: none() };
        let inputs = vec![Term::Integer(1); 25];
        let going = JavaScript::new(LIMITS).reduce(call, Reduction::default(), inputs, false).await.unwrap();
        let (reduction, left) = going.unwrap();
        assert_eq!((reduction.made.len(), left.len()), (1, 5));
    }

    #[tokio::test]
    async fn what_a_function_throws_is_told() {
        assert_eq!(map("function() { throw 'no' }", "1", "1").await.unwrap_err(), "no");
        assert_eq!(map("function() { nope() }", "1", "1").await.unwrap_err(), "ReferenceError: nope is not defined");
        assert!(map("function( {", "1", "1").await.unwrap_err().starts_with("SyntaxError: "));
        assert_eq!(map("Riak.nope", "1", "1").await.unwrap_err(), "no function: Riak.nope");
        assert_eq!(map("function() { return 1 }", "1", "1").await.unwrap_err(), "a function must return an array");
        assert!(
            map("function() { var a = []; a[0] = a; return a }", "1", "1").await.unwrap_err().starts_with("TypeError")
        );
        assert!(reduce("function() { return 1 }", "[1]", none()).await.unwrap_err().contains("must return an array"));
    }

    #[tokio::test]
    async fn time_memory_and_stack_have_bounds() {
        let hurried = JavaScriptLimits { batch_timeout: Duration::from_millis(50), ..LIMITS };
        let forever = map_within(hurried, "function() { for (;;) {} }", &[["1", "1"]]).await;
        assert_eq!(forever.unwrap_err(), "timeout: the function ran too long");
        let caught = "function() { for (;;) { try { for (;;) {} } catch (e) {} } }";
        assert!(map_within(hurried, caught, &[["1", "1"]]).await.is_err(), "it cannot catch its end");
        let pattern = "function() { return [/(a+)+b/.test('a'.repeat(100))] }";
        assert!(map_within(hurried, pattern, &[["1", "1"]]).await.is_err());
        let eats = "function() { var a = []; for (;;) a.push(new Array(1000).fill(1)); }";
        assert!(map(eats, "1", "1").await.unwrap_err().contains("out of memory"));
        let deep = "function f() { return [f()] }";
        assert!(map(deep, "1", "1").await.unwrap_err().starts_with("RangeError"), "the stack");
        let many = "function() { return new Array(20000).fill(1) }";
        assert_eq!(map(many, "1", "1").await.unwrap_err(), "too many values at line 1 column 19999");
    }

    #[tokio::test]
    async fn there_are_no_files_no_network_and_no_clock() {
        let names = [
            "require",
            "process",
            "std",
            "os",
            "fetch",
            "XMLHttpRequest",
            "setTimeout",
            "print",
            "console",
            "performance",
        ];
        let types = format!("function() {{ return [{}] }}", names.map(|name| format!("typeof {name}")).join(","));
        let none = vec![r#""undefined""#; names.len()].join(",");
        assert_eq!(map(&types, "1", "1").await.unwrap(), format!("[{none}]"));
        let dates = "function() { return [Date.now(), new Date().getTime(), new Date(5).getTime(), Date.UTC(1970, 0, 2), \
            new Date('1970-01-01T00:00:01Z').toISOString(), new Date() instanceof Date, typeof Date(), \
            new (new Date(7).constructor)().getTime()] }";
        let want = r#"[0,0,5,86400000,"1970-01-01T00:00:01.000Z",true,"string",0]"#;
        assert_eq!(map(dates, "1", "1").await.unwrap(), want);
        assert!(map("function() { return import('fs') }", "1", "1").await.is_err());
    }

    #[tokio::test]
    async fn engines_share_nothing() {
        let javascript = JavaScript::new(LIMITS);
        let leaves =
            || javascript.map("function() { Riak = 1; left = 1; return [] }".into(), vec![[none(), none(), none()]]);
        assert!(leaves().await.unwrap().is_ok());
        let finds = "function() { return [typeof left, typeof Riak] }".to_owned();
        let found = javascript.map(finds, vec![[none(), none(), none()]]).await.unwrap().ok().unwrap();
        assert_eq!(found, vec![vec![Term::binary(b"undefined"), Term::binary(b"object")]]);
    }
}
