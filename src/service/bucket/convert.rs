//! Bucket properties as messages and as the domain's.

use crate::domain::props::{BucketProps, Hook, ModFun, Property, PropsChange, ReplicationMode};
use crate::domain::quorum::Quorum;
use crate::message::generated::rpb_bucket_props::RpbReplMode;
use crate::message::generated::{RpbBucketProps, RpbCommitHook, RpbModFun};
use crate::service::error::Refusal;

/// The properties that a bucket or type is asked to take.
pub(super) fn from_message(message: RpbBucketProps) -> Result<PropsChange, Refusal> {
    let mut properties = Vec::new();
    let mut take = |property: Option<Property>| properties.extend(property);
    // Property by property in the order of `Property`: Riak reports errors in the reverse of it.
    take(message.n_val.map(Property::NVal));
    take(message.old_vclock.map(Property::OldVclock));
    take(message.young_vclock.map(Property::YoungVclock));
    take(message.big_vclock.map(Property::BigVclock));
    take(message.small_vclock.map(Property::SmallVclock));
    take(message.hll_precision.map(Property::HllPrecision));
    take(message.allow_mult.map(Property::AllowMult));
    take(message.last_write_wins.map(Property::LastWriteWins));
    take(message.basic_quorum.map(Property::BasicQuorum));
    take(message.notfound_ok.map(Property::NotfoundOk));
    take(message.search.map(Property::Search));
    take(message.consistent.map(Property::Consistent));
    take(message.write_once.map(Property::WriteOnce));
    take((message.has_precommit == Some(true)).then(|| Property::Precommit(hooks(message.precommit))));
    take((message.has_postcommit == Some(true)).then(|| Property::Postcommit(hooks(message.postcommit))));
    take(message.chash_keyfun.map(mod_fun).map(Property::ChashKeyfun));
    take(message.linkfun.map(mod_fun).map(Property::Linkfun));
    take(message.backend.map(Property::Backend));
    take(message.search_index.map(Property::SearchIndex));
    take(message.pr.map(Quorum).map(Property::Pr));
    take(message.r.map(Quorum).map(Property::R));
    take(message.w.map(Quorum).map(Property::W));
    take(message.pw.map(Quorum).map(Property::Pw));
    take(message.dw.map(Quorum).map(Property::Dw));
    take(message.rw.map(Quorum).map(Property::Rw));
    if let Some(number) = message.repl {
        let mode = RpbReplMode::try_from(number).map_err(|_| Refusal::malformed("an unknown replication mode"))?;
        take(Some(Property::Repl(match mode {
            RpbReplMode::False => ReplicationMode::Off,
            RpbReplMode::Realtime => ReplicationMode::RealTime,
            RpbReplMode::Fullsync => ReplicationMode::FullSync,
            RpbReplMode::True => ReplicationMode::Both,
        })));
    }
    take(message.datatype.map(Property::Datatype));
    Ok(PropsChange { properties })
}

/// The properties as clients are shown them (`kv.md` §11.2).
pub(super) fn to_message(props: &BucketProps) -> RpbBucketProps {
    let repl = props.repl.map(|mode| match mode {
        ReplicationMode::Off => RpbReplMode::False,
        ReplicationMode::RealTime => RpbReplMode::Realtime,
        ReplicationMode::FullSync => RpbReplMode::Fullsync,
        ReplicationMode::Both => RpbReplMode::True,
    });
    RpbBucketProps {
        n_val: Some(props.n_val),
        allow_mult: Some(props.allow_mult),
        last_write_wins: Some(props.last_write_wins),
        precommit: props.precommit.iter().map(hook_message).collect(),
        has_precommit: Some(true),
        postcommit: props.postcommit.iter().map(hook_message).collect(),
        has_postcommit: Some(true),
        chash_keyfun: Some(mod_fun_message(&props.chash_keyfun)),
        linkfun: Some(mod_fun_message(&props.linkfun)),
        old_vclock: Some(props.old_vclock),
        young_vclock: Some(props.young_vclock),
        big_vclock: Some(props.big_vclock),
        small_vclock: Some(props.small_vclock),
        pr: Some(props.pr),
        r: Some(props.r),
        w: Some(props.w),
        pw: Some(props.pw),
        dw: Some(props.dw),
        rw: Some(props.rw),
        basic_quorum: Some(props.basic_quorum),
        notfound_ok: Some(props.notfound_ok),
        backend: props.backend.clone(),
        search: props.search,
        repl: repl.map(i32::from),
        search_index: props.search_index.clone(),
        datatype: props.datatype.clone(),
        consistent: props.consistent,
        write_once: props.write_once,
        hll_precision: props.hll_precision,
    }
}

/// A hook that names nothing is dropped; a function counts before a name.
fn hooks(messages: Vec<RpbCommitHook>) -> Vec<Hook> {
    let hook = |hook: RpbCommitHook| match (hook.modfun, hook.name) {
        (Some(modfun), _) => Some(Hook::ModFun(mod_fun(modfun))),
        (None, Some(name)) => Some(Hook::Name(name)),
        (None, None) => None,
    };
    messages.into_iter().filter_map(hook).collect()
}

fn mod_fun(message: RpbModFun) -> ModFun {
    ModFun { module: message.module.unwrap_or_default(), function: message.function.unwrap_or_default() }
}

fn hook_message(hook: &Hook) -> RpbCommitHook {
    match hook {
        Hook::ModFun(modfun) => RpbCommitHook { modfun: Some(mod_fun_message(modfun)), name: None },
        Hook::Name(name) => RpbCommitHook { modfun: None, name: Some(name.clone()) },
    }
}

fn mod_fun_message(modfun: &ModFun) -> RpbModFun {
    RpbModFun { module: Some(modfun.module.clone()), function: Some(modfun.function.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::datatype::DataType;

    #[test]
    fn what_get_returns_may_be_set_again() {
        let datatype = Property::Datatype(DataType::Hll.name().into());
        let types = [
            (BucketProps::of_default_type(3), true),
            (BucketProps::of_new_type(3), false),
            (BucketProps::created(3, PropsChange { properties: vec![datatype] }).unwrap(), false),
            (BucketProps::created(3, PropsChange { properties: vec![Property::WriteOnce(true)] }).unwrap(), false),
        ];
        for (props, is_default) in types {
            let change = from_message(to_message(&props)).unwrap();
            assert_eq!(props.changed(change, is_default), Ok(props));
        }
    }

    #[test]
    fn an_unknown_replication_mode_is_refused() {
        assert!(from_message(RpbBucketProps { repl: Some(9), ..RpbBucketProps::default() }).is_err());
    }
}
