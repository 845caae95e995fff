//! Numbers as the short texts in which Riak writes its vtags and generated keys.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A number, given most significant byte first, in base 62 without leading zeros; zero is the empty text.
pub fn encode<const BYTES: usize>(mut number: [u8; BYTES]) -> String {
    let mut digits = Vec::new();
    while number.iter().any(|&byte| byte != 0) {
        let mut remainder = 0;
        for byte in &mut number {
            let dividend = remainder << 8 | usize::from(*byte);
            // The quotient is below 256, because the remainder before it was below 62.
            *byte = (dividend / 62) as u8;
            remainder = dividend % 62;
        }
        digits.push(char::from(DIGITS[remainder]));
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_numbers_then_capitals_then_small_letters() {
        assert_eq!(encode([0; 2]), "");
        assert_eq!(encode([9]), "9");
        assert_eq!(encode([10]), "A");
        assert_eq!(encode([0, 61]), "z");
        assert_eq!(encode([62]), "10");
        assert_eq!(encode(u128::MAX.to_be_bytes()).len(), 22);
    }
}
