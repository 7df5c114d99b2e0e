//! Shares of requests: percentages, fractions, and fractions with a runtime key.

use super::{At, enumeration, pass_over, required};
use crate::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use crate::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use crate::pb::envoy::r#type::v3::{FractionalPercent, Percent};
use mesh_core::Invalid;
use mesh_core::model::Fraction;

/// A share. More than everything is everything, as in Envoy.
pub(crate) fn fraction(value: &FractionalPercent) -> Result<Fraction, Invalid> {
    let FractionalPercent {
        numerator,
        denominator,
    } = value;
    let unit = match enumeration("denominator", *denominator)? {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    Ok(Fraction::millionths(numerator.saturating_mul(unit)))
}

/// A share in millionths.
pub(crate) fn to_fraction(share: Fraction) -> FractionalPercent {
    FractionalPercent {
        numerator: share.as_millionths(),
        denominator: DenominatorType::Million.into(),
    }
}

/// A share in hundredths, ten-thousandths or millionths, whichever the unit is.
pub(crate) fn to_fraction_of(share: Fraction, unit: Fraction) -> FractionalPercent {
    let denominator = match unit.as_millionths() {
        10_000 => DenominatorType::Hundred,
        100 => DenominatorType::TenThousand,
        _ => return to_fraction(share),
    };
    FractionalPercent {
        numerator: share.as_millionths() / unit.as_millionths(),
        denominator: denominator.into(),
    }
}

/// A share given in percent. Less than a millionth is cut off.
pub(crate) fn percent(value: &Percent) -> Result<Fraction, Invalid> {
    let Percent { value } = value;
    Fraction::percent(*value).at("value")
}

/// A share in percent.
pub(crate) fn to_percent(share: Fraction) -> Percent {
    Percent {
        value: f64::from(share.as_millionths()) / 10_000.0,
    }
}

/// A share that runtime could change; here its default holds.
pub(crate) fn runtime_fraction(value: &RuntimeFractionalPercent) -> Result<Fraction, Invalid> {
    let RuntimeFractionalPercent {
        default_value,
        runtime_key,
    } = value;
    pass_over!("envoy.config.core.v3.RuntimeFractionalPercent": runtime_key);
    fraction(required("default_value", default_value)?).at("default_value")
}

/// A share without a runtime key.
pub(crate) fn to_runtime_fraction(share: Fraction) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(to_fraction(share)),
        runtime_key: String::new(),
    }
}

/// Whether a filter is on for all requests or for none; for some is not possible.
pub(crate) fn switch(
    field: &str,
    share: Option<&RuntimeFractionalPercent>,
    default: Fraction,
) -> Result<bool, Invalid> {
    let share = share.map(runtime_fraction).transpose().at(field)?;
    match share.unwrap_or(default) {
        Fraction::ALL => Ok(true),
        Fraction::NONE => Ok(false),
        some => {
            let message = format!("{some} of requests is not supported; 0% and 100% are");
            Err(Invalid::new(field, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_denominator_has_its_own_unit() {
        for (numerator, denominator, millionths) in [
            (25, DenominatorType::Hundred, 250_000),
            (25, DenominatorType::TenThousand, 2_500),
            (25, DenominatorType::Million, 25),
            (101, DenominatorType::Hundred, 1_000_000),
            (u32::MAX, DenominatorType::Hundred, 1_000_000),
        ] {
            let value = FractionalPercent {
                numerator,
                denominator: denominator.into(),
            };
            assert_eq!(fraction(&value).unwrap().as_millionths(), millionths);
        }
    }

    #[test]
    fn an_unknown_denominator_and_a_missing_default_are_refused() {
        let value = FractionalPercent {
            numerator: 1,
            denominator: 9,
        };
        assert_eq!(fraction(&value).unwrap_err().path(), "denominator");
        let error = runtime_fraction(&RuntimeFractionalPercent::default()).unwrap_err();
        assert_eq!(error.path(), "default_value");
    }

    proptest! {
        #[test]
        fn every_share_survives(parts in 0_u32..=1_000_000) {
            let share = Fraction::millionths(parts);
            prop_assert_eq!(fraction(&to_fraction(share)).unwrap(), share);
            prop_assert_eq!(percent(&to_percent(share)).unwrap(), share);
            prop_assert_eq!(runtime_fraction(&to_runtime_fraction(share)).unwrap(), share);
        }
    }
}
