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
    let lines = picture.lines().map(|line| format!("\x1b[97;40m{line}\x1b[0m\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_a_square() {
        let picture = render("quorate:device?key=ED25519.AAAA");
        assert!(picture.lines().count() > 10);
        assert!(render(&"x".repeat(10_000)).is_empty());
    }
}
