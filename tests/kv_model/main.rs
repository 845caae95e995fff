//! Plain objects against a model of the rules: long random histories of requests, every answer compared.
//!
//! A history is named by its seed, which a failure prints; `KV_MODEL_SEED=n cargo test --test kv_model` runs that one alone.

mod doors;
mod rules;
#[path = "../support/mod.rs"]
mod support;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use ombak::message::generated::*;
use ombak::message::{Reply, Request};

use doors::{Door, Embedded, Memory, Reaping, Wire};
use rules::{Answer, Name, Props, Rules, Seen, Shown};
use workload::{Contexts, Random, Step};

/// The contexts that the server has handed out, and what the rules say of each.
#[derive(Default)]
struct Told {
    meaning: HashMap<Bytes, (Name, Seen)>,
    /// In the order in which they were handed out.
    by_name: BTreeMap<Name, Vec<Bytes>>,
    all: Vec<Bytes>,
}

impl Told {
    /// Takes note of a context. One state of an object has one context, and no other state has the same.
    fn note(&mut self, bytes: &Bytes, name: &Name, seen: &Seen) -> Result<(), String> {
        if let Some(known) = self.meaning.get(bytes) {
            return match known == &(name.clone(), seen.clone()) {
                true => Ok(()),
                false => Err(format!("the context {bytes:?} was told for {known:?}, now for {name:?} {seen:?}")),
            };
        }
        let own = self.by_name.entry(name.clone()).or_default();
        if let Some(other) = own.iter().find(|other| self.meaning[*other].1 == *seen) {
            return Err(format!("two contexts for one state: {other:?}, {bytes:?}"));
        }
        own.push(bytes.clone());
        self.all.push(bytes.clone());
        self.meaning.insert(bytes.clone(), (name.clone(), seen.clone()));
        Ok(())
    }
}

impl Contexts for Told {
    fn of(&self, name: &Name) -> &[Bytes] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn any(&self, random: &mut Random) -> Option<Bytes> {
        if self.all.is_empty() { None } else { Some(self.all[random.below(self.all.len())].clone()) }
    }
}

/// Runs one history, and says what it asked before it failed.
async fn run(seed: u64, steps: usize, reaping: Reaping, door: &mut impl Door) {
    let mut random = Random::new(seed);
    let (mut rules, mut told) = (Rules::new(), Told::default());
    let mut trail = Vec::new();
    for number in 0..steps {
        let step = workload::step(&mut random, number, &told);
        trail.push(step.clone());
        let checked = match step {
            Step::Ask(request) => ask(door, &mut rules, &mut told, *request).await,
            Step::Restart => {
                door.restart().await;
                Ok(())
            }
            Step::WaitForReaping if reaping == Reaping::WhenTold => {
                // The clock leaps from timer to timer when nothing else is to do, and this is the last of them.
                tokio::time::sleep(std::time::Duration::from_secs(10)).await;
                rules.reap();
                Ok(())
            }
            Step::WaitForReaping => Ok(()),
        };
        if let Err(difference) = checked {
            // What concerns the same object tells most of the story.
            let last = trail.len() - 1;
            let names =
                |step: &Step| matches!(step, Step::Ask(request) if name_of(request) == name_of_step(&trail[last]));
            let story: Vec<_> = trail.iter().filter(|step| names(step)).map(|step| format!("{step:?}")).collect();
            panic!("seed {seed}, step {number}: {difference}\nafter\n{}", story.join("\n"));
        }
        if reaping == Reaping::AtOnce {
            for name in rules.tombstones() {
                until_reaped(door, &name).await;
            }
            rules.reap();
        }
    }
}

fn name_of_step(step: &Step) -> Option<Name> {
    match step {
        Step::Ask(request) => name_of(request),
        _ => None,
    }
}

fn name_of(request: &Request) -> Option<Name> {
    let (bucket_type, bucket, key) = match request {
        Request::Get(get) => (&get.r#type, &get.bucket, &get.key),
        Request::Put(put) => (&put.r#type, &put.bucket, &put.key),
        Request::Delete(delete) => (&delete.r#type, &delete.bucket, &delete.key),
        _ => return None,
    };
    Some((rules::type_of(bucket_type), bucket.clone().unwrap_or_default(), key.clone().unwrap_or_default()))
}

async fn ask(door: &mut impl Door, rules: &mut Rules, told: &mut Told, request: Request) -> Result<(), String> {
    let (given, key) = match &request {
        Request::Index(query) => (ask_index(door, (**query).clone()).await?, None),
        request => answer_of(request, &door.ask(request).await)?,
    };
    let asked = match request {
        // The rules are told the key that the server made; nothing has it when the put was refused.
        Request::Put(put) if put.key.is_none() => {
            Request::Put(Box::new(RpbPutReq { key: Some(key.unwrap_or("none".into())), ..*put }))
        }
        request => request,
    };
    let name = name_of(&asked);
    let wanted = rules.answer(&asked, &|bytes| match told.meaning.get(bytes) {
        Some((of, seen)) if Some(of) == name.as_ref() => Some(seen.clone()),
        // Another object's context says nothing of this one.
        Some(_) => Some(Seen::default()),
        None => None,
    });
    match (&given, &wanted) {
        (
            Answer::Object { contents, vclock, unchanged },
            Answer::Object { contents: wanted_contents, vclock: seen, unchanged: wanted_unchanged },
        ) if contents == wanted_contents && unchanged == wanted_unchanged => match (vclock, seen) {
            (None, None) => Ok(()),
            (Some(bytes), Some(seen)) => told.note(bytes, name.as_ref().expect("of an object"), seen),
            _ => Err(format!("context {vclock:?}, wanted {seen:?}")),
        },
        (Answer::Refused(given), Answer::Refused(wanted)) if given == wanted => Ok(()),
        (Answer::Done, Answer::Done) => Ok(()),
        (Answer::Names(given), Answer::Names(wanted)) if given == wanted => Ok(()),
        (Answer::Postings(given), Answer::Postings(wanted)) if given == wanted => Ok(()),
        (Answer::Props(given), Answer::Props(wanted)) if given == wanted => Ok(()),
        _ => Err(format!("{given:#?}\nwanted {wanted:#?}\nfor {asked:?}")),
    }
}

/// All pages of an index query. Each but the last is full, and tells where the next begins.
async fn ask_index(door: &mut impl Door, mut query: RpbIndexReq) -> Result<Answer<Bytes>, String> {
    let mut all = Vec::new();
    loop {
        let replies = door.ask(&Request::Index(Box::new(query.clone()))).await;
        let (mut page, mut continuation) = (Vec::new(), None);
        for (number, reply) in replies.iter().enumerate() {
            let part = match reply {
                Reply::Index(part) => part,
                Reply::Error(error) => return Ok(Answer::Refused(String::from_utf8(error.errmsg.to_vec()).unwrap())),
                other => return Err(format!("{other:?} for {query:?}")),
            };
            let ends = number + 1 == replies.len();
            let is_empty = part.keys.is_empty() && part.results.is_empty();
            let streams = query.stream == Some(true);
            if streams && (part.done == Some(true) && is_empty) != ends || !streams && part.done.is_some() {
                return Err(format!("{replies:?} for {query:?}"));
            }
            page.extend(part.keys.iter().map(|key| (None, key.clone())));
            page.extend(part.results.iter().map(|pair| (pair.key.clone(), pair.value.clone().unwrap())));
            continuation = part.continuation.clone();
        }
        let full = query.max_results.is_some_and(|max| page.len() == max as usize);
        let longer = query.max_results.is_some_and(|max| page.len() > max as usize);
        if longer || full != continuation.is_some() {
            return Err(format!("{} postings and {continuation:?} for {query:?}", page.len()));
        }
        all.extend(page);
        match continuation {
            Some(token) => query.continuation = Some(token),
            None => return Ok(Answer::Postings(all)),
        }
    }
}

/// The replies as an answer, and the key that the server made. What has a form of its own is checked here.
fn answer_of(request: &Request, replies: &[Reply]) -> Result<(Answer<Bytes>, Option<Bytes>), String> {
    let answer = match (request, replies) {
        (_, [Reply::Error(error)]) => Answer::Refused(String::from_utf8(error.errmsg.to_vec()).unwrap()),
        (Request::Get(_), [Reply::Get(reply)]) => Answer::Object {
            contents: shown(&reply.content)?,
            vclock: reply.vclock.clone(),
            unchanged: reply.unchanged == Some(true),
        },
        (Request::Put(put), [Reply::Put(reply)]) => {
            if put.key.is_some() == reply.key.is_some() {
                return Err(format!("the key {:?} in the reply", reply.key));
            }
            let (contents, vclock) = (shown(&reply.content)?, reply.vclock.clone());
            return Ok((Answer::Object { contents, vclock, unchanged: false }, reply.key.clone()));
        }
        (Request::Delete(_), [Reply::Delete]) => Answer::Done,
        (Request::SetBucket(_) | Request::SetBucketType(_), [Reply::SetBucket]) => Answer::Done,
        (Request::ResetBucket(_), [Reply::ResetBucket]) => Answer::Done,
        (Request::GetBucket(_) | Request::GetBucketType(_), [Reply::Bucket(reply)]) => {
            Answer::Props(Box::new(props(&reply.props)))
        }
        (Request::ListBuckets(list), [Reply::ListBuckets(reply)]) if list.stream != Some(true) => {
            names(&reply.buckets, &[])?
        }
        (Request::ListBuckets(_), [parts @ .., Reply::ListBuckets(last)]) => {
            let part = |reply: &Reply| match reply {
                Reply::ListBuckets(part) if part.done.is_none() && !part.buckets.is_empty() => Ok(part.buckets.clone()),
                other => Err(format!("{other:?} in a listing")),
            };
            ends(last.done, &last.buckets)?;
            names(&[], &parts.iter().map(part).collect::<Result<Vec<_>, _>>()?)?
        }
        (Request::ListKeys(_), [parts @ .., Reply::ListKeys(last)]) => {
            let part = |reply: &Reply| match reply {
                Reply::ListKeys(part) if part.done.is_none() && !part.keys.is_empty() => Ok(part.keys.clone()),
                other => Err(format!("{other:?} in a listing")),
            };
            ends(last.done, &last.keys)?;
            names(&[], &parts.iter().map(part).collect::<Result<Vec<_>, _>>()?)?
        }
        _ => return Err(format!("{replies:?} for {request:?}")),
    };
    Ok((answer, None))
}

fn ends(done: Option<bool>, names: &[Bytes]) -> Result<(), String> {
    if done == Some(true) && names.is_empty() { Ok(()) } else { Err(format!("a listing ends with {done:?} {names:?}")) }
}

fn names(whole: &[Bytes], parts: &[Vec<Bytes>]) -> Result<Answer<Bytes>, String> {
    let mut all = BTreeSet::new();
    for name in whole.iter().chain(parts.iter().flatten()) {
        if !all.insert(name.clone()) {
            return Err(format!("{name:?} is listed twice"));
        }
    }
    Ok(Answer::Names(all))
}

fn shown(contents: &[RpbContent]) -> Result<Vec<Shown>, String> {
    let pair = |pair: &RpbPair| (pair.key.clone().unwrap(), pair.value.clone().unwrap());
    let mut tags = BTreeSet::new();
    let mut shown = Vec::new();
    for content in contents {
        let tag = content.vtag.clone().unwrap_or_default();
        if content.last_mod.is_none() || content.last_mod_usecs.is_none() || !tags.insert(tag) {
            return Err(format!("no times, or a tag that is not its own: {contents:?}"));
        }
        shown.push(Shown {
            value: content.value.clone(),
            content_type: content.content_type.clone(),
            metadata: content.usermeta.iter().map(pair).collect(),
            indexes: content.indexes.iter().map(pair).collect(),
            deleted: content.deleted == Some(true),
        });
    }
    // In which order they come does not matter to clients.
    shown.sort();
    Ok(shown)
}

fn props(props: &RpbBucketProps) -> Props {
    Props {
        n_val: props.n_val.unwrap(),
        allow_mult: props.allow_mult.unwrap(),
        last_write_wins: props.last_write_wins.unwrap(),
        write_once: props.write_once.unwrap_or_default(),
        r: props.r.unwrap(),
        pr: props.pr.unwrap(),
        w: props.w.unwrap(),
        dw: props.dw.unwrap(),
        pw: props.pw.unwrap(),
        rw: props.rw.unwrap(),
    }
}

/// Waits until the server has removed an object's tombstones, however long it takes.
async fn until_reaped(door: &mut impl Door, (bucket_type, bucket, key): &Name) {
    if bucket.is_empty() {
        // Deletes are not refused there, and nobody can look.
        return;
    }
    // Whatever the bucket's own quorums are, these can be met.
    let request = Request::Get(RpbGetReq {
        bucket: Some(bucket.clone()),
        key: Some(key.clone()),
        r#type: Some(bucket_type.clone()),
        r: Some(1),
        pr: Some(0),
        deletedvclock: Some(true),
        ..RpbGetReq::default()
    });
    loop {
        match &door.ask(&request).await[..] {
            [Reply::Get(reply)] if reply.vclock.is_none() => return,
            [Reply::Get(_)] => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

/// The seeds of a test, or the one that is asked for.
fn seeds(first: u64, count: u64) -> Vec<u64> {
    match std::env::var("KV_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("KV_MODEL_SEED is a number")],
        Err(_) => (first..first + count).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn histories_in_memory() {
    for seed in seeds(0, 200) {
        run(seed, 600, Reaping::WhenTold, &mut Memory::start(Reaping::WhenTold).await).await;
    }
}

#[tokio::test]
async fn histories_on_disk() {
    for seed in seeds(1000, 6) {
        let reaping = if seed.is_multiple_of(2) { Reaping::Never } else { Reaping::AtOnce };
        run(seed, 800, reaping, &mut Embedded::start(reaping).await).await;
    }
}

#[tokio::test]
async fn histories_through_the_wire() {
    for seed in seeds(2000, 2) {
        let reaping = if seed.is_multiple_of(2) { Reaping::Never } else { Reaping::AtOnce };
        run(seed, 800, reaping, &mut Wire::start(reaping).await).await;
    }
}
