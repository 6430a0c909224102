//! Prints the OpenAPI document of a whole installation.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let document = serde_json::to_value(quorate_front_rest::openapi_document())?;
    let text = serde_json::to_string_pretty(&document)?;
    writeln!(std::io::stdout().lock(), "{text}")
}
