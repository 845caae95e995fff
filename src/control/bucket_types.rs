//! Bucket types, as an administrator's words and as the engine's.

use bytes::Bytes;
use serde_json::Value;

use super::{
    ActivateRefusal, BucketTypeAdmin, BucketTypeEntry, BucketTypeState, BucketTypeStatus, ChangeRefusal, StandbyFeeder,
};
use crate::domain::props::{BucketProps, Hook, ModFun, Property, PropsChange, PropsError, Reason, ReplicationMode};
use crate::domain::quorum::Quorum;
use crate::engine::maps::Maps;
use crate::engine::{CreateError, Engine, TypeError};

/// Carries out what is asked.
pub struct EngineAdmin {
    /// Carries out what is about objects.
    pub engine: Engine,
    /// Carries out what is about maps.
    pub maps: Maps,
    /// Feeds other servers.
    pub standbys: Box<dyn StandbyFeeder>,
}

impl BucketTypeAdmin for EngineAdmin {
    async fn list(&self) -> Result<Vec<BucketTypeEntry>, String> {
        let entry = |(name, active): (Bytes, bool)| BucketTypeEntry { name: text(&name), active };
        Ok(self.engine.buckets().types().into_iter().map(entry).collect())
    }

    async fn status(&self, name: &str) -> Result<BucketTypeStatus, String> {
        Ok(match self.engine.buckets().find_type(name.as_bytes()) {
            None => BucketTypeStatus { state: BucketTypeState::Undefined, props: Vec::new() },
            Some(found) => {
                let state = if found.active { BucketTypeState::Active } else { BucketTypeState::Ready };
                BucketTypeStatus { state, props: printed(&found.props, found.active) }
            }
        })
    }

    async fn create(&self, name: &str, props: Vec<(String, Value)>) -> Result<(), ChangeRefusal> {
        let change = parse(props).map_err(ChangeRefusal::Rules)?;
        let name = Bytes::from(name.to_owned());
        self.engine.buckets().create_type(name.clone(), change).await.map_err(|error| match error {
            CreateError::Reserved if name == "any" => rule("The name 'any' may not be used for bucket types"),
            CreateError::Reserved => rule("default_type"),
            CreateError::AlreadyActive => rule("already_active"),
            CreateError::Props(error) => ChangeRefusal::Rules(reasons(&error)),
            CreateError::Store(error) => ChangeRefusal::Failed(error.to_string()),
        })
    }

    async fn update(&self, name: &str, props: Vec<(String, Value)>) -> Result<(), ChangeRefusal> {
        let change = parse(props).map_err(ChangeRefusal::Rules)?;
        self.engine.buckets().update_type(Bytes::from(name.to_owned()), change).await.map_err(|error| match error {
            TypeError::Undefined => rule("undefined"),
            TypeError::NotActive => rule("not_active"),
            TypeError::Default => rule("no_default_update"),
            TypeError::Props(error) => ChangeRefusal::Rules(reasons(&error)),
            TypeError::Store(error) => ChangeRefusal::Failed(error.to_string()),
        })
    }

    async fn activate(&self, name: &str) -> Result<(), ActivateRefusal> {
        self.engine.buckets().activate_type(Bytes::from(name.to_owned())).await.map_err(|error| match error {
            TypeError::Undefined => ActivateRefusal::State(BucketTypeState::Undefined),
            other => ActivateRefusal::Failed(other.to_string()),
        })
    }
}

fn rule(text: &str) -> ChangeRefusal {
    ChangeRefusal::Rules(vec![text.to_owned()])
}

fn reasons(error: &PropsError) -> Vec<String> {
    let reason = |error: &crate::domain::props::PropertyError| match &error.reason {
        Reason::Atom("not_integer") => format!("{} must be an integer", error.property),
        Reason::Atom("not_valid_quorum") => format!("{} must be an integer or (one|quorum|all)", error.property),
        Reason::Atom(other) => format!("{}: {other}", error.property),
        Reason::Text(text) => text.clone(),
    };
    error.0.iter().map(reason).collect()
}

/// The properties that are given as JSON, or every reason why they are none.
fn parse(props: Vec<(String, Value)>) -> Result<PropsChange, Vec<String>> {
    let mut properties = Vec::new();
    let mut refused = Vec::new();
    for (name, value) in &props {
        match property(name, value) {
            Ok(property) => properties.push(property),
            Err(reason) => refused.push(reason),
        }
    }
    if refused.is_empty() { Ok(PropsChange { properties }) } else { Err(refused) }
}

fn property(name: &str, value: &Value) -> Result<Property, String> {
    Ok(match name {
        "n_val" => Property::NVal(integer(name, value)?),
        "old_vclock" => Property::OldVclock(integer(name, value)?),
        "young_vclock" => Property::YoungVclock(integer(name, value)?),
        "big_vclock" => Property::BigVclock(integer(name, value)?),
        "small_vclock" => Property::SmallVclock(integer(name, value)?),
        "hll_precision" => Property::HllPrecision(integer(name, value)?),
        "allow_mult" => Property::AllowMult(boolean(name, value)?),
        "last_write_wins" => Property::LastWriteWins(boolean(name, value)?),
        "basic_quorum" => Property::BasicQuorum(boolean(name, value)?),
        "notfound_ok" => Property::NotfoundOk(boolean(name, value)?),
        "search" => Property::Search(boolean(name, value)?),
        "consistent" => Property::Consistent(boolean(name, value)?),
        "write_once" => Property::WriteOnce(boolean(name, value)?),
        "dvv_enabled" => Property::DvvEnabled(boolean(name, value)?),
        "pr" => Property::Pr(quorum(name, value)?),
        "r" => Property::R(quorum(name, value)?),
        "w" => Property::W(quorum(name, value)?),
        "pw" => Property::Pw(quorum(name, value)?),
        "dw" => Property::Dw(quorum(name, value)?),
        "rw" => Property::Rw(quorum(name, value)?),
        "datatype" => Property::Datatype(string(name, value)?),
        "backend" => Property::Backend(string(name, value)?),
        "search_index" => Property::SearchIndex(string(name, value)?),
        "precommit" => Property::Precommit(hooks(name, value)?),
        "postcommit" => Property::Postcommit(hooks(name, value)?),
        "chash_keyfun" => Property::ChashKeyfun(mod_fun(name, value)?),
        "linkfun" => Property::Linkfun(mod_fun(name, value)?),
        "repl" => Property::Repl(replication(name, value)?),
        "active" => return Err("Cannot modify active property".into()),
        _ => return Err(format!("{name} is no bucket property that Ombak knows")),
    })
}

fn integer(name: &str, value: &Value) -> Result<u32, String> {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| format!("{name} must be an integer"))
}

fn boolean(name: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(format!("{name} should be \"true\" or \"false\"")),
    }
}

fn quorum(name: &str, value: &Value) -> Result<Quorum, String> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Quorum);
    let symbol = [Quorum::ONE, Quorum::QUORUM, Quorum::ALL].into_iter().find(|q| q.symbol() == value.as_str());
    // The numbers at the top of the range are the protocol's symbols, and no quorum that somebody writes down.
    number
        .filter(|quorum| quorum.symbol().is_none())
        .or(symbol)
        .ok_or_else(|| format!("{name} must be an integer or (one|quorum|all)"))
}

fn string(name: &str, value: &Value) -> Result<Bytes, String> {
    value.as_str().map(|text| Bytes::from(text.to_owned())).ok_or_else(|| format!("{name} must be a string"))
}

fn replication(name: &str, value: &Value) -> Result<ReplicationMode, String> {
    match value {
        Value::Bool(true) => Ok(ReplicationMode::Both),
        Value::Bool(false) => Ok(ReplicationMode::Off),
        Value::String(text) if text == "realtime" => Ok(ReplicationMode::RealTime),
        Value::String(text) if text == "fullsync" => Ok(ReplicationMode::FullSync),
        _ => Err(format!("{name} must be true, false, \"realtime\" or \"fullsync\"")),
    }
}

fn mod_fun(name: &str, value: &Value) -> Result<ModFun, String> {
    match (value.get("mod").and_then(Value::as_str), value.get("fun").and_then(Value::as_str)) {
        (Some(module), Some(function)) => {
            Ok(ModFun { module: module.to_owned().into(), function: function.to_owned().into() })
        }
        _ => Err(format!("{name} must be {{\"mod\": MODULE, \"fun\": FUNCTION}}")),
    }
}

fn hooks(name: &str, value: &Value) -> Result<Vec<Hook>, String> {
    let hook = |hook: &Value| match hook.get("name").and_then(Value::as_str) {
        Some(name) => Ok(Hook::Name(name.to_owned().into())),
        None => mod_fun(name, hook).map(Hook::ModFun),
    };
    value.as_array().ok_or_else(|| format!("{name} must be a list of hooks"))?.iter().map(hook).collect()
}

/// The properties as Erlang terms.
fn printed(props: &BucketProps, active: bool) -> Vec<(String, String)> {
    let quorum = |value: u32| Quorum(value).symbol().map_or_else(|| value.to_string(), str::to_owned);
    let mod_fun = |modfun: &ModFun| format!("{{{},{}}}", text(&modfun.module), text(&modfun.function));
    let hook = |hook: &Hook| match hook {
        Hook::ModFun(hook) => format!(
            "{{struct,[{{<<\"mod\">>,<<\"{}\">>}},{{<<\"fun\">>,<<\"{}\">>}}]}}",
            text(&hook.module),
            text(&hook.function)
        ),
        Hook::Name(name) => format!("{{struct,[{{<<\"name\">>,<<\"{}\">>}}]}}", text(name)),
    };
    let hooks = |hooks: &[Hook]| format!("[{}]", hooks.iter().map(hook).collect::<Vec<_>>().join(","));
    let repl = |mode: ReplicationMode| match mode {
        ReplicationMode::Off => "false",
        ReplicationMode::RealTime => "realtime",
        ReplicationMode::FullSync => "fullsync",
        ReplicationMode::Both => "true",
    };
    let always = [
        ("active", active.to_string()),
        ("allow_mult", props.allow_mult.to_string()),
        ("basic_quorum", props.basic_quorum.to_string()),
        ("big_vclock", props.big_vclock.to_string()),
        ("chash_keyfun", mod_fun(&props.chash_keyfun)),
        ("dvv_enabled", props.dvv_enabled.to_string()),
        ("dw", quorum(props.dw)),
        ("last_write_wins", props.last_write_wins.to_string()),
        ("linkfun", format!("{{modfun,{},{}}}", text(&props.linkfun.module), text(&props.linkfun.function))),
        ("n_val", props.n_val.to_string()),
        ("notfound_ok", props.notfound_ok.to_string()),
        ("old_vclock", props.old_vclock.to_string()),
        ("postcommit", hooks(&props.postcommit)),
        ("pr", quorum(props.pr)),
        ("precommit", hooks(&props.precommit)),
        ("pw", quorum(props.pw)),
        ("r", quorum(props.r)),
        ("rw", quorum(props.rw)),
        ("small_vclock", props.small_vclock.to_string()),
        ("w", quorum(props.w)),
        ("young_vclock", props.young_vclock.to_string()),
    ];
    let where_set = [
        ("backend", props.backend.as_ref().map(|name| format!("<<\"{}\">>", text(name)))),
        ("consistent", props.consistent.map(|value| value.to_string())),
        ("datatype", props.datatype.as_ref().map(|name| text(name))),
        ("hll_precision", props.hll_precision.map(|value| value.to_string())),
        ("repl", props.repl.map(|mode| repl(mode).to_owned())),
        ("search", props.search.map(|value| value.to_string())),
        ("search_index", props.search_index.as_ref().map(|name| format!("<<\"{}\">>", text(name)))),
        ("write_once", props.write_once.map(|value| value.to_string())),
    ];
    let where_set = where_set.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    always.into_iter().chain(where_set).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(name: &str, value: Value) -> String {
        property(name, &value).unwrap_err()
    }

    #[test]
    fn values_are_taken_as_riaks_administrators_write_them() {
        assert_eq!(property("allow_mult", &json!("false")), Ok(Property::AllowMult(false)));
        assert_eq!(property("w", &json!("quorum")), Ok(Property::W(Quorum::QUORUM)));
        assert_eq!(property("w", &json!(2)), Ok(Property::W(Quorum(2))));
        assert_eq!(property("datatype", &json!("map")), Ok(Property::Datatype("map".into())));
        let hook = Hook::Name("f".into());
        assert_eq!(property("precommit", &json!([{"name": "f"}])), Ok(Property::Precommit(vec![hook])));
    }

    #[test]
    fn refusals_are_riaks_texts() {
        assert_eq!(refused("n_val", json!("x")), "n_val must be an integer");
        assert_eq!(refused("allow_mult", json!(1)), "allow_mult should be \"true\" or \"false\"");
        assert_eq!(refused("w", json!("some")), "w must be an integer or (one|quorum|all)");
        assert_eq!(refused("active", json!(true)), "Cannot modify active property");
        assert!(refused("no_such", json!(1)).contains("no_such"));
    }
}
