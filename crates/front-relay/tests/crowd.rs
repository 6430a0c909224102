//! Many connections at once on many threads: everything asked for comes, once and in order.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod client;

use std::sync::Arc;

use bytes::Bytes;
use client::{id, serve};
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_front_relay::Config;
use quorate_wire::relay::{HEADER, Ttl, ask, publish};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

const CLIENTS: u32 = 24;
const EACH: u32 = 40;

/// The message of a client: some are small, some are longer than a read.
fn body(from: u32, number: u32) -> Vec<u8> {
    vec![from as u8; 1 + (from * 7_919 + number * 104_729) as usize % 50_000]
}

fn name(from: u32, number: u32) -> u32 {
    from * 1_000 + number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_connection_gets_every_message_once_and_in_order() {
    let server = Arc::new(serve(Config::default()).await);
    let mut tasks = JoinSet::new();
    for me in 0..CLIENTS {
        let server = server.clone();
        tasks.spawn(async move {
            let client = server.client().await;
            let (mut writing, mut reading) = client.socket.split();
            let sending = async {
                for number in 0..EACH {
                    // Every second one asks before it publishes.
                    let own = publish(id(name(me, number)), Ttl(60), 0, &body(me, number));
                    let others = (0..CLIENTS).filter(|other| *other != me);
                    let asks = others.map(|other| ask(id(name(other, number)), Ttl(60)));
                    let mut frames: Vec<Bytes> = asks.chain([own]).collect();
                    if me % 2 == 0 {
                        frames.rotate_right(1);
                    }
                    for frame in frames {
                        writing.feed(Message::Binary(frame)).await.unwrap();
                    }
                }
                writing.flush().await.unwrap();
            };
            let receiving = async {
                let mut next = vec![0; CLIENTS as usize];
                for _ in 0..(CLIENTS - 1) * EACH {
                    let Message::Binary(frame) = reading.next().await.unwrap().unwrap() else {
                        panic!("only messages come");
                    };
                    let named = u32::from_le_bytes(frame[..4].try_into().unwrap());
                    let (from, number) = (named / 1_000, named % 1_000);
                    assert_eq!(frame[HEADER..], body(from, number)[..]);
                    assert_eq!(number, next[from as usize], "in the order of asking or publishing");
                    next[from as usize] += 1;
                }
            };
            tokio::join!(sending, receiving);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let metrics = server.until("all left", |m| m.connections == 0).await;
    assert_eq!(metrics.deliveries, u64::from(CLIENTS * (CLIENTS - 1) * EACH));
    assert_eq!((metrics.stored, metrics.waiting), (u64::from(CLIENTS * EACH), 0));
    assert_eq!((metrics.queued_bytes, metrics.incoming_bytes, metrics.slow_reader), (0, 0, 0));
}
