//! Failed MapReduce jobs in Riak's words (`queries.md` §3.7). Where Riak's explanations of a malformed job are free text,
//! these are shorter.

use super::error::Refusal;
use super::kv::name::no_bucket_type;
use crate::erlang::Term;
use crate::erlang::print::{atom, binary, term};
use crate::mapreduce::json::{self, RenderError};
use crate::mapreduce::{
    Caller, Failure, FaultClass, FilterError, InputsError, JobError, PhaseRefusal, QueryError, SendingError,
};

/// How much of a term is shown.
const SHOWN_BYTES_MAX: usize = 500;

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        let text = match error {
            JobError::UnknownContentType(content_type) => format!("{{unknown_content_type,{}}}", binary(&content_type)),
            JobError::InvalidJson(error) => format!("{{invalid_json,{}}}", binary(error.to_string().as_bytes())),
            JobError::NotAnObject => "not_json".into(),
            JobError::MissingField => "missing_field".into(),
            JobError::InvalidTerm(error) => format!("{{badarg,{}}}", binary(error.to_string().as_bytes())),
            JobError::NotAPropertyList => "function_clause".into(),
            JobError::Inputs(error) => format!("{{inputs,{}}}", inputs(&error)),
            JobError::Query(error) => format!("{{query,[{}]}}", query(&error)),
            JobError::Phase { phase, reason } => format!("Phase {phase}: {}", phase_refusal(&reason, phase.caller)),
            // The Python client looks for the second text in Riak's error and makes the first of it.
            JobError::ErlangSource => {
                "May have tried erlang strfun when not allowed\noriginal error: worker_startup_failed".into()
            }
            JobError::Sending(SendingError::NoSuchType(bucket_type)) => return no_bucket_type(&bucket_type),
            JobError::Sending(error) => format!("Error sending inputs: {}", sending(&error)),
            JobError::Failed(failure) => failed(&failure),
            JobError::Render(RenderError::NoForm(result)) => {
                format!("Error processing stream message: exit:{{json_encode,{{bad_term,{}}}}}", shown(&result))
            }
            JobError::Render(RenderError::NotUtf8(text)) => {
                let text = shown(&Term::Binary(text));
                format!("Error processing stream message: exit:{{ucs,{{bad_utf8_character_code,{text}}}}}")
            }
            JobError::Timeout => "timeout".into(),
            JobError::Encode(_) | JobError::TooManyInputs { .. } | JobError::TooMuchMemory { .. } => error.to_string(),
            JobError::Interrupted => {
                tracing::error!(%error, "a MapReduce job failed");
                error.to_string()
            }
        };
        Self::open(text)
    }
}

fn shown(shown: &Term) -> String {
    term(shown, SHOWN_BYTES_MAX)
}

/// A list of texts, as it is printed.
fn texts(texts: &[&str]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| shown(&Term::characters(text.as_bytes()))).collect();
    texts.join(",")
}

/// A part of a job, in the job's own encoding where that is JSON.
fn part(part: &Term) -> String {
    json::render(part).unwrap_or_else(|_| shown(part))
}

fn inputs(error: &InputsError) -> String {
    match error {
        InputsError::None => texts(&["No inputs were given.\n"]),
        InputsError::Unrecognized(inputs) => {
            let what = "Unrecognized format of \"inputs\" field:";
            format!("[{}]", texts(&[what, "   ", &part(inputs), "\n"]))
        }
        InputsError::Index(error) => {
            let failures: Vec<_> = error.0.iter().map(super::error::index_failure).collect();
            format!("[{}]", failures.join(","))
        }
    }
}

fn query(error: &QueryError) -> String {
    match error {
        QueryError::NotAList(query) => {
            texts(&["The value of the \"query\" field was not a list:\n   ", &part(query), "\n"])
        }
        QueryError::UnrecognizedPhase(phase) => {
            let forms = "\n\nValid formats are:\n   {\"map\":{...spec...}}\n   {\"reduce\":{...spec...}}\n   \
                {\"link\":{...spec}}\n";
            texts(&["Unrecognized format of query phase:\n   ", &part(phase), forms])
        }
        QueryError::Keep(phase) => texts(&["The \"keep\" field was not a boolean value in:\n   ", &part(phase), "\n"]),
        QueryError::Link(step) => {
            let must = "\n\n \"bucket\" and \"tag\" fields must have string values.\n";
            texts(&["Invalid link step specification:\n   ", &part(step), must])
        }
        QueryError::NoLanguage(step) => {
            texts(&["No \"language\" was specified for the phase:\n", "   ", &part(step), "\n"])
        }
        QueryError::UnknownLanguage(step) => texts(&["Unknown language in phase:\n", "   ", &part(step), "\n"]),
        QueryError::NoFunction { language, phase } => {
            let what = format!("No function specified in {language} phase:\n   ");
            texts(&[&what, &part(phase), "\n"])
        }
        QueryError::TooManyPhases { max } => texts(&[&format!("There are more than {max} phases.\n")]),
    }
}

fn phase_refusal(reason: &PhaseRefusal, caller: Caller) -> String {
    let (what, arity) = match caller {
        Caller::Map => ("PhaseSpec", 3),
        Caller::Reduce => ("arg", 2),
    };
    match (reason, caller) {
        (PhaseRefusal::NotExported { module, function }, _) => {
            format!("{what} specifies {}:{}/{arity}, which is not exported", atom(module), atom(function))
        }
        (PhaseRefusal::NoModule { module }, _) => format!(
            "invalid module named in {what} function:\n must be a valid module name (failed to load {}: nofile)",
            atom(module)
        ),
        (PhaseRefusal::NotCallable, Caller::Map) => {
            "The PhaseSpec part of the argument for riak_kv_mrc_map must be of \
            one of the following forms:\n   {modfun, Module :: atom(), Function :: atom()}\n   \
            {qfun, Function :: function()}\n   {strfun, Source :: string()}\n   \
            {strfun, {Bucket :: binary(), Key :: binary()}}\n"
                .into()
        }
        (PhaseRefusal::NotCallable, Caller::Reduce) => {
            "riak_kv_w_reduce requires a function as argument, not a tuple".into()
        }
    }
}

fn sending(error: &SendingError) -> String {
    match error {
        SendingError::Filter(error) => format!("{{error,{}}}", filter(error)),
        SendingError::NoSuchType(_) | SendingError::Engine(_) => format!("{{error,{error}}}"),
        SendingError::SearchUnavailable => {
            format!("{{error,{}}}", texts(&[&error.to_string()]))
        }
        SendingError::Function { module, function, arg } => {
            format!("{{{{modfun,{},{},{}}},error,undef,[]}}", atom(module), atom(function), shown(arg))
        }
    }
}

fn filter(error: &FilterError) -> String {
    match error {
        FilterError::Unknown(name) => format!("{{bad_filter,{}}}", shown(name)),
        FilterError::Undefined(name) => format!("{{undef,{name}}}"),
        FilterError::Arguments(name) => format!("{{bad_filter_arguments,{name}}}"),
        FilterError::Value { name, value } => format!("{{badarg,{name},{}}}", shown(value)),
    }
}

/// The failure of a function is told as a JSON object.
fn failed(failure: &Failure) -> String {
    let Failure { phase, fault, input } = failure;
    let (function, arity) = fault.place;
    let class = match fault.class {
        FaultClass::Error => "error",
        FaultClass::Throw => "throw",
    };
    let stack = format!("[{{riak_kv_mapreduce,{function},{arity},[]}}]");
    let text = |text: &str| Term::binary(text.as_bytes());
    let member = |name: &str, value| Term::Tuple(vec![text(name), value]);
    let members = [
        member("phase", Term::Integer((*phase).into())),
        member("error", text(&shown(&fault.reason))),
        member("input", text(&shown(input))),
        member("type", text(class)),
        member("stack", text(&stack)),
    ];
    // Nothing in it is anything but text and a number.
    json::render_list(&members).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::index::{IndexError, IndexFailure};
    use crate::erlang::external::TermLimits;
    use crate::mapreduce::{Fault, Job, PhaseName};

    #[track_caller]
    fn check(error: JobError, text: &str) {
        assert_eq!(Refusal::from(error), Refusal::open(text));
    }

    #[track_caller]
    fn check_json(job: &'static str, text: &str) {
        let limits = TermLimits { depth_max: 64, terms_max: 1000 };
        check(Job::parse(&job.into(), &"application/json".into(), limits).unwrap_err(), text);
    }

    #[test]
    fn malformed_jobs_are_told_as_riak_tells_them() {
        check(JobError::UnknownContentType("text/plain".into()), r#"{unknown_content_type,<<"text/plain">>}"#);
        check_json("1", "not_json");
        check_json(r#"{"query":[]}"#, "missing_field");
        check_json(r#"{"inputs":[],"query":[]}"#, r#"{inputs,"No inputs were given.\n"}"#);
        let query = r#"{query,["The value of the \"query\" field was not a list:\n   ","1","\n"]}"#;
        check_json(r#"{"inputs":"b","query":1}"#, query);
        let inputs = r#"{inputs,["Unrecognized format of \"inputs\" field:","   ","{\"a\":1}","\n"]}"#;
        check_json(r#"{"inputs":{"a":1},"query":[]}"#, inputs);
        let failure = IndexFailure::Parsing { name: "n_int".into(), value: "x".into() };
        let index = JobError::Inputs(InputsError::Index(IndexError(vec![failure])));
        check(index, r#"{inputs,[{field_parsing_failed,{<<"n_int">>,<<"x">>}}]}"#);
        check_json("x", r#"{invalid_json,<<"expected value at line 1 column 1">>}"#);
    }

    #[test]
    fn phases_that_cannot_be_run_are_named() {
        let refused =
            |caller, is_last, reason| JobError::Phase { phase: PhaseName { index: 0, caller, is_last }, reason };
        let unexported = PhaseRefusal::NotExported { module: "riak_kv_mapreduce".into(), function: "f".into() };
        check(
            refused(Caller::Map, true, unexported.clone()),
            "Phase 0: PhaseSpec specifies riak_kv_mapreduce:f/3, which is not exported",
        );
        check(
            refused(Caller::Reduce, false, unexported),
            "Phase {reduce,0}: arg specifies riak_kv_mapreduce:f/2, which is not exported",
        );
        check(
            refused(Caller::Map, true, PhaseRefusal::NoModule { module: "nope".into() }),
            "Phase 0: invalid module named in PhaseSpec function:\n must be a valid module name (failed to load nope: \
             nofile)",
        );
    }

    #[test]
    fn failures_of_functions_are_json_objects() {
        let fault =
            Fault { reason: Term::atom("function_clause"), class: FaultClass::Error, place: ("map_object_value", 3) };
        let input = Term::Tuple(vec![Term::binary(b"b\"\xff"), Term::binary(&[b'a'; 1000])]);
        let text = failed(&Failure { phase: 3, fault, input });
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["phase"], 3);
        assert_eq!(parsed["error"], "function_clause");
        assert_eq!(parsed["type"], "error");
        assert!(parsed["input"].as_str().unwrap().len() <= SHOWN_BYTES_MAX + 3);
    }

    #[test]
    fn inputs_that_cannot_be_had_are_told_as_such() {
        let unknown = SendingError::Filter(FilterError::Unknown(Term::binary(b"nope")));
        check(unknown.into(), r#"Error sending inputs: {error,{bad_filter,<<"nope">>}}"#);
        check(SendingError::SearchUnavailable.into(), r#"Error sending inputs: {error,"search not enabled"}"#);
        check(SendingError::NoSuchType("t".into()).into(), "No bucket-type named 't'");
        let function = SendingError::Function { module: "m".into(), function: "f".into(), arg: Term::Integer(1) };
        check(function.into(), "Error sending inputs: {{modfun,m,f,1},error,undef,[]}");
    }
}
