//! Inputs made of earlier ones: flips, splices, insertions, truncation, words of the format.

use quorate_testkit::Seeded;

/// Longest input. Frames are longer at most, and no parser here looks at their length.
const MAX_INPUT: usize = 8 << 10;

/// Most changes from one input to the next.
const MAX_CHANGES: usize = 6;

fn byte(seeded: &mut Seeded) -> u8 {
    seeded.number().to_le_bytes()[0]
}

/// A place in the input and one at most `most` bytes behind it.
fn range(seeded: &mut Seeded, input: &[u8], most: usize) -> std::ops::Range<usize> {
    let from = seeded.below(input.len() + 1);
    let to = (from + seeded.below(most + 1)).min(input.len());
    from..to
}

/// A new input from one of the pool.
pub(crate) fn mutated(rng: &mut Seeded, pool: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut input = pool[rng.below(pool.len())].clone();
    for _ in 0..=rng.below(MAX_CHANGES) {
        change(rng, &mut input, pool, words);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(rng: &mut Seeded, input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&str]) {
    match rng.below(9) {
        0 | 1 if !input.is_empty() => {
            let at = rng.below(input.len());
            input[at] = if rng.below(2) == 0 { input[at] ^ 1 << rng.below(8) } else { byte(rng) };
        }
        2 => {
            let at = range(rng, input, 0).start;
            let bytes: Vec<_> = (0..rng.below(8)).map(|_| byte(rng)).collect();
            input.splice(at..at, bytes);
        }
        3 => {
            let range = range(rng, input, 40);
            input.splice(range, words[rng.below(words.len())].bytes());
        }
        4 => {
            let at = range(rng, input, 0).start;
            input.splice(at..at, words[rng.below(words.len())].bytes());
        }
        5 => drop(input.drain(range(rng, input, 64))),
        6 => {
            let copied = input[range(rng, input, 400)].to_vec();
            let at = range(rng, input, 0).start;
            input.splice(at..at, copied);
        }
        7 => {
            // The front of one and the back of another.
            let other = &pool[rng.below(pool.len())];
            input.truncate(range(rng, input, 0).start);
            input.extend_from_slice(&other[range(rng, other, 0).start..]);
        }
        _ if rng.below(4) == 0 => input.truncate(range(rng, input, 0).start),
        _ => swap_number(rng, input),
    }
}

/// Puts another number where one stands as text.
fn swap_number(rng: &mut Seeded, input: &mut Vec<u8>) {
    const NUMBERS: &[&str] =
        &["0", "1", "2", "3", "4", "7", "-1", "255", "65535", "65536", "4294967296", "1e3", "0.1"];
    let digits: Vec<_> = (0..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
    if digits.is_empty() {
        return;
    }
    let from = digits[rng.below(digits.len())];
    let length = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    input.splice(from..from + length, NUMBERS[rng.below(NUMBERS.len())].bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let pool = vec![b"{\"id\":17}".to_vec(), Vec::new()];
        let make = |seed| {
            let mut rng = Seeded(seed);
            (0..500).map(|_| mutated(&mut rng, &pool, &["null"])).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(3).iter().all(|input| input.len() <= MAX_INPUT));
    }
}
