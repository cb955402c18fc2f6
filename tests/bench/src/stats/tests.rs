use super::*;

fn near(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} is not {right}");
}

#[test]
fn a_median_is_the_middle_or_between_the_two() {
    near(Spread::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
    near(Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    near(Spread::of(&[7.0]).unwrap().median, 7.0);
}

#[test]
fn quantiles_lie_on_the_line_between_samples() {
    let sorted: Vec<f64> = (0..=10).map(f64::from).collect();
    near(quantile(&sorted, 0.1), 1.0);
    near(quantile(&sorted, 0.9), 9.0);
    near(quantile(&sorted, 0.25), 2.5);
    near(quantile(&sorted, 0.0), 0.0);
    near(quantile(&sorted, 1.0), 10.0);
    assert!(quantile(&[], 0.5).is_nan());
}

#[test]
fn nothing_comes_of_nothing_or_of_what_is_no_number() {
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    assert_eq!(Spread::of(&[1.0, f64::INFINITY]), None);
}

/// The known table of the sign test: with 6 to 8 rounds the whole range, with 9 to 11 all but one
/// at each end, with 12 to 14 all but two.
#[test]
fn the_interval_of_the_median_is_that_of_the_sign_test() {
    let left_out = |samples| outside_the_interval(samples);
    assert_eq!([6, 7, 8].map(left_out), [0; 3]);
    assert_eq!([9, 10, 11].map(left_out), [1; 3]);
    assert_eq!([12, 13, 14].map(left_out), [2; 3]);
    assert_eq!([15, 16, 17].map(left_out), [3, 3, 4]);
    assert_eq!(left_out(25), 7);
}

#[test]
fn with_few_rounds_the_interval_is_the_whole_range() {
    for samples in 1..=5 {
        assert_eq!(outside_the_interval(samples), 0, "{samples}");
    }
    let few = Spread::of(&[5.0, 1.0, 9.0]).unwrap();
    near(few.low, 1.0);
    near(few.high, 9.0);
}

#[test]
fn ratios_are_of_one_round() {
    assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]), [2.0, 3.0]);
    assert_eq!(ratios(&[2.0, 9.0, 4.0], &[0.0, 3.0]), [3.0]);
    assert_eq!(differences(&[2.0, 9.0], &[1.0, 3.0]), [1.0, 6.0]);
}
