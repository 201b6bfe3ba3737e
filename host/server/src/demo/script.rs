//! The two tenants of the demo: their plugins, settings, sinks, rules and events, and what must come of them.

use serde_json::Value;
use serde_json::json;

/// What a tenant has, and what is fed to it.
#[derive(Debug)]
pub struct Script {
    /// Its name.
    pub tenant: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// The example plugins that it uploads.
    pub plugins: &'static [&'static str],
    /// The sink that its rules deliver to; also the receiver's path.
    pub sink: &'static str,
    /// Its rules.
    pub rules: &'static str,
    /// The folder of its events.
    pub stream: &'static str,
    /// What must come of its events, whatever happens on the way.
    pub expectations: &'static [Expectation],
}

/// Something countable that follows from the events alone.
#[derive(Debug)]
pub struct Expectation {
    /// What is counted, for people.
    pub what: &'static str,
    /// How it is seen from outside.
    pub seen: Seen,
    /// Which events it follows from, one for one.
    pub of: fn(&Value) -> bool,
}

/// How something is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Runs of this rule that are done.
    Done(&'static str),
    /// Runs of this rule that are parked.
    Parked(&'static str),
    /// The sum of the numbers that this plugin keeps under keys with this prefix.
    State(&'static str, &'static str),
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

fn is_order(event: &Value) -> bool {
    kind(event) == "orders.created" && event.get("poison").is_none()
}

fn is_poison(event: &Value) -> bool {
    kind(event) == "orders.created" && event.get("poison").is_some()
}

fn is_webhook(event: &Value) -> bool {
    kind(event).starts_with("github.")
}

fn is_push(event: &Value) -> bool {
    kind(event) == "github.push" && event["data"]["deleted"] == json!(false)
}

/// All tenants.
pub const SCRIPTS: &[Script] = &[
    Script {
        tenant: "acme-shop",
        about: "a shop: orders are split, scored, metered; some are poison",
        plugins: &["enrich-order", "fraud-score", "notify", "usage-meter", "always-fails"],
        sink: "notifications",
        rules: include_str!("rules/shop.yaml"),
        stream: "orders",
        expectations: &[
            Expectation { what: "orders split into lines", seen: Seen::Done("order-lines"), of: is_order },
            Expectation { what: "orders scored", seen: Seen::Done("fraud"), of: is_order },
            Expectation { what: "orders metered", seen: Seen::Done("metering"), of: is_order },
            Expectation { what: "orders counted in state", seen: Seen::State("usage-meter", "orders:"), of: is_order },
            Expectation { what: "poison orders parked", seen: Seen::Parked("poison"), of: is_poison },
            Expectation { what: "poison orders not metered", seen: Seen::Parked("metering"), of: is_poison },
        ],
    },
    Script {
        tenant: "octo-hub",
        about: "real GitHub webhooks: counted, mapped, redacted, digested",
        plugins: &["github-digest"],
        sink: "chat",
        rules: include_str!("rules/hub.yaml"),
        stream: "github",
        expectations: &[
            Expectation { what: "webhooks digested", seen: Seen::Done("digest"), of: is_webhook },
            Expectation {
                what: "webhooks counted in state",
                seen: Seen::State("github-digest", "total"),
                of: is_webhook,
            },
            Expectation { what: "pushes passed on", seen: Seen::Done("pushes"), of: is_push },
        ],
    },
];

/// The settings of a plugin, where its defaults do not fit.
pub fn settings(plugin: &str) -> Option<Value> {
    match plugin {
        "notify" => Some(json!({
            "template": "{type}: order {/order} of customer {/customer}, {/total_eur} EUR, score {/score}",
        })),
        "github-digest" => Some(json!({"every": 20, "top": 3})),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let order = json!({"type": "orders.created"});
        let poison = json!({"type": "orders.created", "poison": "x"});
        assert!(is_order(&order) && !is_poison(&order) && is_poison(&poison) && !is_order(&poison));
        let push = |deleted| json!({"type": "github.push", "data": {"deleted": deleted}});
        assert!(is_push(&push(false)) && !is_push(&push(true)) && is_webhook(&push(true)));
    }

    #[test]
    fn every_expectation_is_about_a_rule_or_plugin_that_is_there() {
        for script in SCRIPTS {
            for expectation in script.expectations {
                match expectation.seen {
                    Seen::Done(rule) | Seen::Parked(rule) => {
                        assert!(script.rules.contains(&format!("name: {rule}\n")), "{rule}");
                    }
                    Seen::State(plugin, _) => assert!(script.plugins.contains(&plugin), "{plugin}"),
                }
            }
            assert!(script.rules.contains(&format!("sink: {} ", script.sink)) || script.plugins.contains(&"notify"));
        }
    }
}
