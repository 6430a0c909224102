//! QR codes in the terminal.

use std::io::IsTerminal as _;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// The text as a QR code of half blocks, dark on light whatever the terminal's colours; nothing
/// where no person looks, or where the text is too long for one.
pub(in crate::cli) fn code(text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return String::new();
    }
    render(text)
}

fn render(text: &str) -> String {
    let Ok(code) = QrCode::new(text) else { return String::new() };
    let picture =
        code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    let lines = picture.lines().map(|line| format!("\x1b[30;47m{line}\x1b[0m\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modules of a picture as a camera sees them, dark ones as true, and how wide it is. Every
    /// colour must be set: a terminal's own may be either way round.
    fn seen(picture: &str) -> (Vec<bool>, usize) {
        let mut rows = Vec::new();
        for line in picture.lines() {
            let (mut ink, mut paper) = (None, None);
            let (mut upper, mut lower) = (Vec::new(), Vec::new());
            let mut rest = line;
            while let Some(next) = rest.chars().next() {
                if let Some(sequence) = rest.strip_prefix("\x1b[") {
                    let (codes, after) = sequence.split_once('m').unwrap();
                    for code in codes.split(';') {
                        match code {
                            "0" => (ink, paper) = (None, None),
                            "30" => ink = Some(true),
                            "37" => ink = Some(false),
                            "40" => paper = Some(true),
                            "47" => paper = Some(false),
                            other => panic!("{other} is no black or white"),
                        }
                    }
                    rest = after;
                    continue;
                }
                let (ink, paper) = (ink.unwrap(), paper.unwrap());
                let halves = match next {
                    ' ' => (paper, paper),
                    '\u{2580}' => (ink, paper),
                    '\u{2584}' => (paper, ink),
                    '\u{2588}' => (ink, ink),
                    other => panic!("{other:?} is no half block"),
                };
                upper.push(halves.0);
                lower.push(halves.1);
                rest = &rest[next.len_utf8()..];
            }
            rows.extend([upper, lower]);
        }
        let width = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == width), "a rectangle");
        (rows.concat(), width)
    }

    #[test]
    fn a_reader_that_takes_dark_on_light_only_reads_the_link() {
        const SCALE: usize = 4;
        let member = "ECDSA_P256_SEC1.A2sX0sQZl7f1c4Hn0l3R8m2v6b9y5t1r4e7w0q3a6s9dZ";
        let room = format!("quorate:room?relay=ws%3A&member={member}&member={member}");
        for link in ["quorate:device?key=ED25519.AAAA", &room] {
            let (modules, width) = seen(&render(link));
            let side = (width * SCALE, modules.len() / width * SCALE);
            let grey = |x: usize, y: usize| {
                if modules[y / SCALE * width + x / SCALE] { 0 } else { 255 }
            };
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(side.0, side.1, grey);
            let grids = image.detect_grids();
            assert_eq!(grids.len(), 1, "{link}");
            assert_eq!(grids[0].decode().unwrap().1, link);
        }
    }

    #[test]
    fn a_text_that_is_too_long_has_no_picture() {
        assert!(render(&"x".repeat(10_000)).is_empty());
    }
}
