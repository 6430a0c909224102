//! Prints how many acknowledged messages a second the store appends for 64 concurrent submitters.
#![allow(clippy::print_stdout, reason = "a program whose output is a number")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_ports::{Store as _, Urgency, Write};
use quorate_store::SqliteStore;
use quorate_types::*;
use uuid::Uuid;

const SUBMITTERS: u32 = 64;
const PAYLOAD: usize = 200;

fn message(sequence: u64) -> Result<Write> {
    let message = Message {
        message_id: MessageId(Uuid::from_u64_pair(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1)),
        session_id: SessionId(Uuid::from_u64_pair(sequence % 1_000, 2)),
        from_party: "sender".parse()?,
        is_broadcast: false,
        round: 1,
        message_type: "round-1".into(),
        payload: vec![0x5a; PAYLOAD].into(),
        created_at: Timestamp(0),
    };
    Ok(Write::Message(Arc::new(MessageRow::new(message, sequence, vec!["receiver".parse()?]))))
}

async fn submit_until(store: Arc<SqliteStore>, first: u32, deadline: Instant) -> Result<u64> {
    let mut done = 0;
    while Instant::now() < deadline {
        let sequence = u64::from(first) + done * u64::from(SUBMITTERS);
        store.submit(vec![message(sequence)?], Urgency::Now).await?;
        done += 1;
    }
    Ok(done)
}

/// Arguments: the folder to write to (default: a temporary one) and the seconds to run (default 5).
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let store = Arc::new(SqliteStore::open(&folder)?);
    let (start, before) = (Instant::now(), store.commits());
    let deadline = start + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..SUBMITTERS)
        .map(|first| tokio::spawn(submit_until(store.clone(), first, deadline)))
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let commits = store.commits() - before;
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = done as f64 / elapsed;
    println!(
        "{rate:.0} acknowledged appends/s ({done} in {commits} commits, {SUBMITTERS} submitters, {PAYLOAD} bytes)"
    );
    Ok(())
}
