//! The nearest known name to one that is not known. Pure.
//!
//! * In: a name and candidates.
//! * Out: the candidate that was probably meant.
//! * Never: a suggestion that shares too little with the name.

/// The candidate that `name` was most likely meant to be, if any is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: String = name.chars().take(128).collect::<String>().to_lowercase();
    // Of two letters each is near to each: only case may differ.
    let limit = match wanted.chars().count() {
        0..3 => 0,
        letters => letters / 3,
    };
    let distance = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        // A beginning is near, too: `dimension` for `dimensionId`.
        let begins = wanted.len() >= 3 && candidate.starts_with(&wanted);
        let distance = strsim::damerau_levenshtein(&wanted, &candidate);
        if begins { distance.min(limit) } else { distance }
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The remedy for a word that is not one of `candidates`.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(name, candidates.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known here: {}", candidates.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_suggested_and_far_ones_are_not() {
        let known = ["id", "table", "timezone", "batch", "externalId", "EndUser", "after_key"];
        for (name, expected) in [
            ("tabel", Some("table")),
            ("Table", Some("table")),
            ("externalID", Some("externalId")),
            ("external_id", Some("externalId")),
            ("Enduser", Some("EndUser")),
            ("after", Some("after_key")),
            ("colour", None),
            ("ID", Some("id")),
            ("ie", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
