//! The part of a group that is only ever added to: runs, usage and recordings.

use std::collections::BTreeMap;

use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::recordings::Additions;
use crate::sqlite::row::list_text;
use crate::sqlite::row::run_state_number;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Commit;
use crate::work::RunRecord;

static ADD_RUNS: Rows = Rows::new(
    "INSERT INTO runs (tenant, pos, rule, number, attempt, rule_set, event, plugin, plugin_version, state, code, \
     reason, fuel, micros, ended, effects, logs) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

static ADD_USAGE: Rows = Rows::new(
    "INSERT INTO usage (tenant, day, plugin, rule, events, attempts, done, failed, fuel, micros, emitted, deliveries) \
     VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?)",
    " ON CONFLICT DO UPDATE SET events = events + excluded.events, attempts = attempts + excluded.attempts, \
     done = done + excluded.done, failed = failed + excluded.failed, fuel = fuel + excluded.fuel, \
     micros = micros + excluded.micros, emitted = emitted + excluded.emitted, \
     deliveries = deliveries + excluded.deliveries",
);

static ADD_UNITS: Rows = Rows::new(
    "INSERT INTO usage_units (tenant, day, plugin, rule, unit, amount) VALUES ",
    "(?,?,?,?,?,?)",
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
);

/// Writes ended attempts, each with its number.
pub(in crate::sqlite) async fn add_runs(tx: &mut Transaction<'_>, runs: &[(TenantId, i64, &RunRecord)]) -> Result<()> {
    ADD_RUNS.execute(tx.conn, runs, bind_run).await.map_err(fault::outward)?;
    Ok(())
}

type Line<'a> = (TenantId, i64, &'a str, &'a str);

#[derive(Debug, Default)]
struct Sums {
    events: u64,
    attempts: u64,
    done: u64,
    failed: u64,
    fuel: u64,
    micros: u64,
    emitted: u64,
    deliveries: u64,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct History<'a> {
    runs: Vec<(TenantId, i64, &'a RunRecord)>,
    usage: BTreeMap<Line<'a>, Sums>,
    units: BTreeMap<(Line<'a>, &'a str), f64>,
    recordings: Additions<'a>,
}

impl<'a> History<'a> {
    pub(super) fn add(&mut self, commit: &'a Commit, tx: &mut Transaction<'_>) {
        for run in &commit.runs {
            self.runs.push((commit.tenant, tx.number(), run));
        }
        self.recordings.add(commit.tenant, &commit.recordings, tx);
        let day = commit.now.day();
        for used in &commit.usage {
            let line = (commit.tenant, day, used.plugin.as_str(), used.rule.as_str());
            let sums = self.usage.entry(line).or_default();
            sums.attempts = sums.attempts.saturating_add(used.attempts);
            sums.done = sums.done.saturating_add(used.done);
            sums.failed = sums.failed.saturating_add(used.failed);
            sums.fuel = sums.fuel.saturating_add(used.fuel);
            sums.micros = sums.micros.saturating_add(used.micros);
            sums.emitted = sums.emitted.saturating_add(used.emitted);
            sums.deliveries = sums.deliveries.saturating_add(used.deliveries);
            for (unit, amount) in used.units.iter().filter(|(_, amount)| amount.is_finite()) {
                let sum = self.units.entry((line, unit.as_str())).or_default();
                // A sum that is no number could not be stored, and would take the whole commit down with it.
                *sum = (*sum + amount).clamp(f64::MIN, f64::MAX);
            }
        }
    }

    /// Counts an event that was taken in from outside.
    pub(super) fn accepted(&mut self, tenant: TenantId, day: i64) {
        self.usage.entry((tenant, day, "", "")).or_default().events += 1;
    }

    pub(super) async fn flush(&self, tx: &mut Transaction<'_>) -> Result<()> {
        add_runs(tx, &self.runs).await?;
        let usage: Vec<_> = self.usage.iter().collect();
        ADD_USAGE
            .execute(tx.conn, &usage, |(line, sums), args| bind_sums(line, sums, args))
            .await
            .map_err(fault::outward)?;
        let units: Vec<_> = self.units.iter().collect();
        ADD_UNITS
            .execute(tx.conn, &units, |(((tenant, day, plugin, rule), unit), amount), args| {
                args.int(tenant.0).int(*day).text(plugin).text(rule).text(unit).real(**amount);
            })
            .await
            .map_err(fault::outward)?;
        self.recordings.flush(tx).await
    }
}

fn bind_run((tenant, number, run): &(TenantId, i64, &RunRecord), args: &mut Args) {
    args.int(tenant.0)
        .int(run.position.0)
        .text(&run.rule)
        .int(*number)
        .int(i64::from(run.attempt))
        .int(run.rule_set)
        .blob(&run.event.0)
        .text_opt(run.plugin.as_ref().map(|(name, _)| name.as_str()))
        .int_opt(run.plugin.as_ref().map(|(_, version)| i64::from(*version)))
        .int(run_state_number(run.state))
        .text(&run.code)
        .text(&run.reason)
        .count(run.fuel)
        .count(u64::try_from(run.duration.as_micros()).unwrap_or(u64::MAX))
        .int(run.ended.0)
        .int(i64::from(run.effects))
        .text_opt(list_text(&run.logs).as_deref());
}

fn bind_sums((tenant, day, plugin, rule): &Line<'_>, sums: &Sums, args: &mut Args) {
    args.int(tenant.0)
        .int(*day)
        .text(plugin)
        .text(rule)
        .count(sums.events)
        .count(sums.attempts)
        .count(sums.done)
        .count(sums.failed)
        .count(sums.fuel)
        .count(sums.micros)
        .count(sums.emitted)
        .count(sums.deliveries);
}
