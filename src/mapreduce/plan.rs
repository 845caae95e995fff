//! What of a job can be run: its phases' functions found, its filters checked.

use super::builtin::{MODULE, MapFunction, ReduceFunction};
use super::error::{Caller, JobError, PhaseName, PhaseRefusal};
use super::job::{Function, Phase, PhaseKind, Script};
use crate::erlang::Term;

/// A phase that can be run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stage {
    pub(super) run: Run,
    pub(super) keep: bool,
}

/// What running it means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Run {
    Map { function: MapFunction, arg: Term },
    Reduce(ReduceFunction),
    ScriptMap { script: Script, arg: Term },
    ScriptReduce { script: Script, arg: Term },
}

/// The phases as stages, or why the first of those that cannot be run cannot.
pub(super) fn plan(phases: Vec<Phase>, runs_javascript: bool) -> Result<Vec<Stage>, JobError> {
    let count = phases.len();
    let stage = |(index, phase): (usize, Phase)| {
        let name = |caller| PhaseName { index, caller, is_last: index + 1 == count };
        let run = match phase.kind {
            PhaseKind::Map { function: Function::JavaScript(script), arg } if runs_javascript => {
                Run::ScriptMap { script, arg }
            }
            PhaseKind::Reduce { function: Function::JavaScript(script), arg } if runs_javascript => {
                Run::ScriptReduce { script, arg }
            }
            PhaseKind::Map { function, arg } => {
                Run::Map { function: find(function, name(Caller::Map), MapFunction::find)?, arg }
            }
            PhaseKind::Reduce { function, .. } => {
                Run::Reduce(find(function, name(Caller::Reduce), ReduceFunction::find)?)
            }
            PhaseKind::Link(links) => Run::Map { function: MapFunction::Links(links), arg: Term::atom("none") },
        };
        Ok(Stage { run, keep: phase.keep })
    };
    phases.into_iter().enumerate().map(stage).collect()
}

fn find<T>(function: Function, phase: PhaseName, find: fn(&[u8]) -> Option<T>) -> Result<T, JobError> {
    let reason = match function {
        Function::Module { module, function } if &module[..] == MODULE => match find(&function) {
            Some(found) => return Ok(found),
            None => PhaseRefusal::NotExported { module, function },
        },
        Function::Module { module, .. } => PhaseRefusal::NoModule { module },
        Function::ErlangSource => return Err(JobError::ErlangSource),
        Function::JavaScript(_) | Function::Invalid => PhaseRefusal::NotCallable,
    };
    Err(JobError::Phase { phase, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapreduce::job::LinkMatch;

    fn module(module: &'static str, function: &'static str) -> Function {
        Function::Module { module: module.into(), function: function.into() }
    }

    fn map(function: Function) -> Phase {
        Phase { kind: PhaseKind::Map { function, arg: Term::Integer(1) }, keep: false }
    }

    fn reduce(function: Function) -> Phase {
        Phase { kind: PhaseKind::Reduce { function, arg: Term::Integer(1) }, keep: true }
    }

    #[test]
    fn phases_become_stages() {
        let links = LinkMatch { bucket: None, tag: None };
        let phases = vec![
            Phase { kind: PhaseKind::Link(links.clone()), keep: false },
            map(module("riak_kv_mapreduce", "map_object_value")),
            reduce(module("riak_kv_mapreduce", "reduce_sort")),
        ];
        let want = vec![
            Stage { run: Run::Map { function: MapFunction::Links(links), arg: Term::atom("none") }, keep: false },
            Stage { run: Run::Map { function: MapFunction::ObjectValue, arg: Term::Integer(1) }, keep: false },
            Stage { run: Run::Reduce(ReduceFunction::Sort), keep: true },
        ];
        assert_eq!(plan(phases, false).unwrap(), want);
        assert_eq!(plan(vec![], false).unwrap(), vec![]);
    }

    #[test]
    fn the_first_phase_that_cannot_be_run_is_named() {
        let good = || reduce(module("riak_kv_mapreduce", "reduce_sum"));
        let error = |phases| match plan(phases, false) {
            Err(JobError::Phase { phase, reason }) => (phase.to_string(), reason),
            other => panic!("{other:?}"),
        };
        let exported = |function: &'static str| PhaseRefusal::NotExported {
            module: "riak_kv_mapreduce".into(),
            function: function.into(),
        };
        let wrong = map(module("riak_kv_mapreduce", "reduce_sum"));
        assert_eq!(error(vec![wrong.clone()]), ("0".into(), exported("reduce_sum")));
        assert_eq!(error(vec![wrong, good()]), ("{xform_map,0}".into(), exported("reduce_sum")));
        let wrong = reduce(module("riak_kv_mapreduce", "map_identity"));
        assert_eq!(error(vec![good(), wrong, good()]), ("{reduce,1}".into(), exported("map_identity")));
        let wrong = map(module("nope", "f"));
        assert_eq!(error(vec![good(), wrong]), ("1".into(), PhaseRefusal::NoModule { module: "nope".into() }));
        let script = Script::Code("Riak.mapValues".into());
        let javascript = || Function::JavaScript(script.clone());
        assert_eq!(error(vec![map(javascript())]).1, PhaseRefusal::NotCallable);
        let run = Run::ScriptMap { script: script.clone(), arg: Term::Integer(1) };
        assert_eq!(plan(vec![map(javascript())], true).unwrap(), vec![Stage { run, keep: false }]);
        assert_eq!(error(vec![reduce(Function::Invalid)]).1, PhaseRefusal::NotCallable);
        assert!(matches!(plan(vec![map(Function::ErlangSource)], true), Err(JobError::ErlangSource)));
    }
}
