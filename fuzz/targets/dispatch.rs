//! Conversations of well-formed requests on few names, with odd frames between them.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use ombak_fuzz::conversation::converse;
use ombak_fuzz::heap;
use ombak_fuzz::requests::Step;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(input)) else { return Corpus::Reject };
    heap::bounded(input.len(), || run(&steps));
    Corpus::Keep
});

fn run(steps: &[Step]) {
    converse(async |mut clients| {
        for step in steps {
            if let Some(time) = step.wait() {
                tokio::time::advance(time).await;
            }
            if let Some((connection, code, payload)) = step.frame(clients.seen()) {
                clients.ask(connection, code, payload).await;
            }
        }
    });
}
