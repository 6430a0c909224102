//! What the measurements of both relays share: servers, clients, idle connections.

pub(crate) mod client;
pub(crate) mod idle;
pub(crate) mod server;

use server::Kinds;

/// Prints what a second brought and what one of it cost the server, of each kind, and the ratios.
pub(crate) fn print_rates(rates: [f64; 3], costs: [f64; 3], of: &str) {
    for (at, kind) in Kinds::ALL.iter().enumerate() {
        let (rate, cost) = (rates[at], costs[at]);
        println!("    {:<12} {rate:9.0} /s   server CPU {cost:6.2} µs a {of}", kind.name());
    }
    println!(
        "    Quorate / plain {:.2}, / echo {:.2}; CPU / plain {:.2}, / echo {:.2}",
        rates[2] / rates[1],
        rates[2] / rates[0],
        costs[2] / costs[1],
        costs[2] / costs[0],
    );
}
