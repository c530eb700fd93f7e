//! The calculation: litres of a fuel times its published factor, in whole millionths, so that the same input
//! gives the same digits everywhere. Knows nothing of where the input comes from.

use std::fmt;

use serde_json::{Map, Number, Value};

/// Where the factors are from. The README says how they were taken and checked.
pub const SOURCE: &str = "UK Government GHG Conversion Factors for Company Reporting 2024, version 1.1 (DESNZ): \
    Fuels, kg CO2e per litre";

/// Largest amount. With six decimals the product stays within the 15 digits that every JSON reader keeps.
const MAX_LITRES: u64 = 100_000_000;
const MICRO: u64 = 1_000_000;

/// A fuel and its factor in millionths of a kg CO2e per litre.
struct Fuel {
    name: &'static str,
    micro_kg_per_litre: u64,
}

/// The rows of the table that this agent knows.
const FUELS: [Fuel; 6] = [
    // Diesel (average biofuel blend)
    Fuel { name: "diesel", micro_kg_per_litre: 2_512_790 },
    // Diesel (100% mineral diesel)
    Fuel { name: "mineral_diesel", micro_kg_per_litre: 2_661_550 },
    // Petrol (average biofuel blend)
    Fuel { name: "petrol", micro_kg_per_litre: 2_084_400 },
    // LPG
    Fuel { name: "lpg", micro_kg_per_litre: 1_557_130 },
    // Gas oil
    Fuel { name: "gas_oil", micro_kg_per_litre: 2_755_410 },
    // Burning oil
    Fuel { name: "burning_oil", micro_kg_per_litre: 2_540_150 },
];

/// Why an input is refused; the text is for the person who sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

/// A number of millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Micros(u64);

/// The result for `input`, without the line about the kernel.
pub fn calculate(input: &Value) -> Result<Map<String, Value>, Invalid> {
    let Value::Object(input) = input else {
        return invalid("the input is not an object such as {\"fuel\":\"diesel\",\"litres\":12.5}");
    };
    if let Some(name) = input.keys().find(|name| !matches!(name.as_str(), "fuel" | "litres")) {
        return invalid(format!("\"{name}\" is unknown; known are \"fuel\" and \"litres\""));
    }
    let fuel = match input.get("fuel").and_then(Value::as_str) {
        Some(name) => FUELS.iter().find(|fuel| fuel.name == name),
        None => None,
    };
    let Some(fuel) = fuel else {
        let known: Vec<_> = FUELS.iter().map(|fuel| fuel.name).collect();
        return invalid(format!("\"fuel\" must be one of {}", known.join(", ")));
    };
    let litres = match input.get("litres") {
        Some(Value::Number(number)) => Micros::read(&decimal(number)),
        _ => None,
    };
    let Some(litres) = litres.filter(|litres| litres.0 <= MAX_LITRES * MICRO) else {
        return invalid(format!(
            "\"litres\" must be a number from 0 to {MAX_LITRES} with at most 6 decimals"
        ));
    };
    // Millionths times millionths, rounded half up to millionths: a milligram.
    let exact = u128::from(litres.0) * u128::from(fuel.micro_kg_per_litre);
    let rounded = (exact + u128::from(MICRO / 2)) / u128::from(MICRO);
    let Ok(kg) = u64::try_from(rounded) else {
        return invalid("the result is too large");
    };
    let members = [
        ("fuel", Value::from(fuel.name)),
        ("litres", litres.number()?),
        ("factor_kg_co2e_per_litre", Micros(fuel.micro_kg_per_litre).number()?),
        ("kg_co2e", Micros(kg).number()?),
        ("source", Value::from(SOURCE)),
    ];
    Ok(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn invalid<T>(cause: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(cause.into()))
}

/// The digits of a number as its writer meant them: a double's shortest form, never with an exponent.
fn decimal(number: &Number) -> String {
    match (number.as_u64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(double)) => double.to_string(),
        (None, None) => number.to_string(),
    }
}

// === impl Micros ===

impl Micros {
    /// Reads a plain decimal.
    fn read(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 6 || !digits(whole) || !digits(decimals) {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let decimals: u64 = format!("{decimals:0<6}").parse().ok()?;
        whole.checked_mul(MICRO)?.checked_add(decimals).map(Self)
    }

    /// As a JSON number with the same digits: at most 15 of them, which a double keeps exactly.
    fn number(self) -> Result<Value, Invalid> {
        if self.0.is_multiple_of(MICRO) {
            return Ok(Value::from(self.0 / MICRO));
        }
        let double: Option<f64> = self.to_string().parse().ok();
        match double.and_then(Number::from_f64) {
            Some(number) => Ok(Value::Number(number)),
            None => invalid(format!("{self} is not a number")),
        }
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / MICRO, self.0 % MICRO);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the digits as written, not as a double.
    fn check(input: &str, expected: Result<&str, &str>) {
        let input = serde_json::from_str(input).unwrap();
        match (calculate(&input), expected) {
            (Ok(result), Ok(kg)) => {
                assert_eq!(result["kg_co2e"].to_string(), kg, "{input}");
                assert_eq!(result["litres"], input["litres"]);
                assert_eq!(result["source"], SOURCE);
            }
            (Err(Invalid(cause)), Err(part)) => assert!(cause.contains(part), "{input}: {cause}"),
            (got, expected) => panic!("{input}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_product_has_the_expected_digits() {
        // Each product worked out by hand from the table's factor.
        for (fuel, litres, kg) in [
            ("diesel", "12.5", "31.409875"),
            ("diesel", "1", "2.51279"),
            ("mineral_diesel", "100", "266.155"),
            ("petrol", "40", "83.376"),
            ("petrol", "0", "0"),
            ("lpg", "0.1", "0.155713"),
            ("gas_oil", "1000", "2755.41"),
            ("burning_oil", "2.25", "5.715338"),
            // As serde_json writes small numbers.
            ("diesel", "0.000001", "3e-6"),
            ("diesel", "99999999.999999", "251278999.999997"),
            ("diesel", "100000000", "251279000"),
        ] {
            check(&format!(r#"{{"fuel":"{fuel}","litres":{litres}}}"#), Ok(kg));
        }
    }

    #[test]
    fn every_factor_is_the_one_of_the_table() {
        for (fuel, factor) in [
            ("diesel", "2.51279"),
            ("mineral_diesel", "2.66155"),
            ("petrol", "2.0844"),
            ("lpg", "1.55713"),
            ("gas_oil", "2.75541"),
            ("burning_oil", "2.54015"),
        ] {
            let result = calculate(&serde_json::json!({"fuel": fuel, "litres": 1})).unwrap();
            assert_eq!(result["factor_kg_co2e_per_litre"].to_string(), factor);
        }
        assert_eq!(FUELS.len(), 6);
    }

    #[test]
    fn what_cannot_be_calculated_is_refused_with_its_cause() {
        for (input, part) in [
            ("[]", "not an object"),
            ("{}", "\"fuel\" must be one of diesel,"),
            (r#"{"fuel":"coal","litres":1}"#, "\"fuel\" must be one of"),
            (r#"{"fuel":"Diesel","litres":1}"#, "\"fuel\" must be one of"),
            (r#"{"fuel":"diesel"}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":"1"}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":-1}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":0.0000001}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":1.2345678}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":100000000.000001}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":1e30}"#, "\"litres\" must be"),
            (r#"{"fuel":"diesel","litres":1,"liters":1}"#, "\"liters\" is unknown"),
        ] {
            check(input, Err(part));
        }
    }
}
