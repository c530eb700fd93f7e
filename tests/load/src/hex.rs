//! Bytes on a command line or in a line of a file.

/// `bytes` in hexadecimal.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of [`text`].
///
/// # Errors
/// When it is not hexadecimal.
pub fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    anyhow::ensure!(
        digits.len() == hex.len() && hex.len().is_multiple_of(2),
        "not hexadecimal: {hex}"
    );
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    Ok(digits.chunks_exact(2).map(byte).map(u8::try_from).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(text(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(bytes("007fFf").unwrap(), [0, 0x7f, 0xff]);
        assert!(bytes("0").is_err() && bytes("0g").is_err());
    }
}
