"""What words weigh, from -1 (bad) to 1 (good)."""

WEIGHTS = {
    "awful": -1.0,
    "bad": -0.6,
    "broke": -0.8,
    "broken": -0.8,
    "disappointed": -0.7,
    "excellent": 1.0,
    "fine": 0.3,
    "good": 0.6,
    "great": 0.8,
    "late": -0.4,
    "love": 0.9,
    "perfect": 1.0,
    "poor": -0.7,
    "quick": 0.4,
    "refund": -0.6,
    "slow": -0.4,
    "solid": 0.5,
    "useless": -0.9,
    "worse": -0.7,
    "worst": -1.0,
}

NEGATIONS = {"no", "not", "never", "hardly"}
