//! What is told apart, and by whom.

use super::*;

const LEVELS: [Level; 4] = [Level::Low, Level::Raised, Level::High, Level::Critical];

#[test]
fn plain_has_no_colour_at_all() {
    let theme = Theme::plain();
    let mut styles = LEVELS.map(|level| theme.level(Some(level))).to_vec();
    styles.extend([theme.good(), theme.warn(), theme.bad(), theme.strong(), theme.dim()]);
    styles.extend([theme.reversed(), theme.key(), theme.cursor()]);
    assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
}

#[test]
fn each_level_has_its_colour() {
    let colors = LEVELS.map(|level| Theme::colored().level(Some(level)).fg.unwrap());
    assert_eq!(colors, [Color::Green, Color::Yellow, Color::Indexed(208), Color::Red]);
}

#[test]
fn a_key_goes_through_all_palettes() {
    let start = Theme::colored();
    let mut theme = start;
    for _ in Palette::ALL {
        theme = theme.next();
    }
    assert_eq!(theme, start);
    assert_ne!(theme.next(), start);
}

/// Linear light.
type Light = [f64; 3];
/// Lightness, green to red, blue to yellow: CIE L*a*b* at D65.
type Lab = [f64; 3];

/// How colours are seen without one kind of cones, in linear light (Machado, Oliveira, Fernandes
/// 2009, severity 1), and by most people.
const EYES: [(&str, [Light; 3]); 4] = [
    ("all cones", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    (
        "protanopia",
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
    ),
    (
        "deuteranopia",
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
    ),
    (
        "tritanopia",
        [
            [1.255_528, -0.076_749, -0.178_779],
            [-0.078_411, 0.930_809, 0.147_602],
            [0.004_733, 0.691_367, 0.303_900],
        ],
    ),
];

/// CIEDE2000; about 1 can just be told apart side by side, 10 at a glance.
const APART: f64 = 15.0;

fn times(rows: [Light; 3], [a, b, c]: Light) -> Light {
    rows.map(|[x, y, z]| x * a + y * b + z * c)
}

fn linear(rgb: [u8; 3]) -> Light {
    rgb.map(|level| {
        let level = f64::from(level) / 255.0;
        if level <= 0.040_45 { level / 12.92 } else { ((level + 0.055) / 1.055).powf(2.4) }
    })
}

/// A colour of the cube of 6 × 6 × 6; of the first 16 as xterm has them, since each terminal has its
/// own.
fn rgb(color: Color) -> [u8; 3] {
    match color {
        Color::Green => [0, 205, 0],
        Color::Yellow => [205, 205, 0],
        Color::Red => [205, 0, 0],
        Color::Indexed(index @ 16..=231) => {
            let cube = index - 16;
            let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
            [level(cube / 36), level(cube / 6 % 6), level(cube % 6)]
        }
        other => panic!("{other:?}"),
    }
}

fn lab(light: Light) -> Lab {
    let xyz = times(
        [
            [0.412_456_4, 0.357_576_1, 0.180_437_5],
            [0.212_672_9, 0.715_152_2, 0.072_175_0],
            [0.019_333_9, 0.119_192_0, 0.950_304_1],
        ],
        light,
    );
    let [x, y, z] = [xyz[0] / 0.950_47, xyz[1], xyz[2] / 1.088_83].map(|t: f64| {
        if t > 216.0 / 24_389.0 { t.cbrt() } else { (24_389.0 / 27.0 * t + 16.0) / 116.0 }
    });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// CIEDE2000, after Sharma, Wu and Dalal 2005.
fn distance(one: Lab, other: Lab) -> f64 {
    let seventh = |chroma: f64| (chroma.powi(7) / (chroma.powi(7) + 25_f64.powi(7))).sqrt();
    let chroma = f64::midpoint(one[1].hypot(one[2]), other[1].hypot(other[2]));
    let stretched = 1.0 + 0.5 * (1.0 - seventh(chroma));
    let polar = |[_, a, b]: Lab| {
        let a = stretched * a;
        (a.hypot(b), b.atan2(a).to_degrees().rem_euclid(360.0))
    };
    let ((c1, h1), (c2, h2)) = (polar(one), polar(other));
    let turn = if c1 * c2 == 0.0 { 0.0 } else { (h2 - h1 + 180.0).rem_euclid(360.0) - 180.0 };
    let hue = if c1 * c2 == 0.0 { h1 + h2 } else { h1 + turn / 2.0 };
    let (lightness, chroma) = (f64::midpoint(one[0], other[0]), f64::midpoint(c1, c2));
    let cosine = |factor: f64, offset: f64| (factor * hue + offset).to_radians().cos();
    let t = 1.0 - 0.17 * cosine(1.0, -30.0) + 0.24 * cosine(2.0, 0.0) + 0.32 * cosine(3.0, 6.0)
        - 0.20 * cosine(4.0, -63.0);
    let from_50 = (lightness - 50.0).powi(2);
    let l = (other[0] - one[0]) / (1.0 + 0.015 * from_50 / (20.0 + from_50).sqrt());
    let c = (c2 - c1) / (1.0 + 0.045 * chroma);
    let h = 2.0 * (c1 * c2).sqrt() * (turn / 2.0).to_radians().sin() / (1.0 + 0.015 * chroma * t);
    let bend = 30.0 * (-((hue.rem_euclid(360.0) - 275.0) / 25.0).powi(2)).exp();
    let rotation = -(2.0 * bend).to_radians().sin() * 2.0 * seventh(chroma);
    (l * l + c * c + h * h + rotation * c * h).sqrt()
}

/// Every two of the colours that are too near to each other for some eyes.
fn too_near(colors: &[(&str, [u8; 3])]) -> Vec<String> {
    let mut near = Vec::new();
    for (eyes, rows) in EYES {
        let seen = |rgb| lab(times(rows, linear(rgb)).map(|light: f64| light.clamp(0.0, 1.0)));
        for (at, (one, first)) in colors.iter().enumerate() {
            for (other, second) in &colors[at + 1..] {
                let distance = distance(seen(*first), seen(*second));
                if distance < APART {
                    near.push(format!("{eyes}: {one} and {other}: {distance:.1}"));
                }
            }
        }
    }
    near
}

fn levels(palette: Palette) -> Vec<(&'static str, [u8; 3])> {
    ["low", "raised", "high", "critical"].into_iter().zip(palette.levels().map(rgb)).collect()
}

/// Two of the pairs by which implementations are checked (Sharma, Wu, Dalal 2005).
#[test]
fn the_distance_is_ciede2000() {
    let pairs = [
        ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
        ([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644),
        ([22.7233, 20.0904, -46.6940], [23.0331, 14.9730, -42.5619], 2.0373),
        ([90.8027, -2.0831, 1.4410], [91.1528, -1.6435, 0.0447], 1.4441),
    ];
    for (one, other, expected) in pairs {
        assert!((distance(one, other) - expected).abs() < 1e-4, "{one:?} {other:?}");
        assert!((distance(other, one) - expected).abs() < 1e-4, "{one:?} {other:?}");
    }
    let white = lab(linear([255; 3]));
    assert!((white[0] - 100.0).abs() < 0.01 && white[1].hypot(white[2]) < 0.05, "{white:?}");
}

#[test]
fn without_any_kind_of_cones_all_levels_are_told_apart() {
    let mut colors = levels(Palette::ColorBlind);
    colors.extend([("black", [0; 3]), ("white", [255; 3])]);
    assert_eq!(too_near(&colors), [""; 0]);
    // What is no level has no colour that could be taken for one.
    let theme = Theme::new(Palette::ColorBlind, false);
    let level = |color| theme.palette.levels().contains(&color);
    assert!([theme.good(), theme.warn(), theme.bad()].iter().all(|it| it.fg.is_some_and(level)));
    assert_eq!(theme.key().fg, None);
    assert!(theme.good() != theme.warn() && theme.warn() != theme.bad());
}

/// That the check can fail: the usual colours do.
#[test]
fn the_usual_levels_are_not_for_everybody() {
    assert!(!too_near(&levels(Palette::Usual)).is_empty());
}
