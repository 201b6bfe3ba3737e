//! The suite that every backend passes: what the ports' texts promise, as checks over any [`Store`].
//!
//! A backend says how its store is opened and closed ([`Ground`]) and gets one test per case:
//!
//! ```ignore
//! bulkhead_store::conformance!(MyGround::new());
//! ```
//!
//! A case sees nothing but the ports. What only one backend can go wrong in (its files, its errors) is tested beside
//! that backend. Reading order: `world` (what cases have at hand), then one file per topic.
//!
//! [`Store`]: crate::Store

#![expect(missing_docs, reason = "a case's name says what it checks")]

mod append;
mod batch;
mod commit;
mod deliveries;
mod isolation;
mod leases;
mod plugins;
mod reading;
mod recordings;
mod releases;
mod retention;
mod runs;
mod settings;
mod state;
mod tenants;
mod timers;
mod unfinished;
mod usage;
mod world;

pub use self::world::Ground;
pub use self::world::World;

/// Names every case once: what is missing here is dead code, and the compiler says so.
macro_rules! suite {
    ($d:tt $($topic:ident { $($case:ident,)+ })+) => {
        /// The cases, by topic.
        pub mod cases {
            $(
                /// Cases of one topic.
                pub mod $topic {
                    $(pub use super::super::$topic::$case;)+
                }
            )+
        }

        /// One test per case, each over a store of its own. Takes an expression that makes a
        /// [`Ground`](crate::conformance::Ground).
        #[macro_export]
        macro_rules! conformance {
            ($d ground:expr) => {
                $(
                    mod $topic {
                        #[allow(unused_imports, reason = "the expression may not need the names around it")]
                        use super::*;
                        $(
                            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                            async fn $case() {
                                let mut world = $crate::conformance::World::on(Box::new($d ground)).await;
                                $crate::conformance::cases::$topic::$case(&mut world)
                                    .await
                                    .expect("because the store answers");
                                world.close().await;
                            }
                        )+
                    }
                )+
            };
        }
    };
}

suite! { $
    append {
        events_read_back_whole,
        the_same_event_is_accepted_once,
        other_sources_and_tenants_have_ids_of_their_own,
        fifty_at_once_are_accepted_once,
        positions_follow_the_order_of_the_append,
        an_unknown_tenant_is_refused_and_nobody_else,
        more_than_one_statement_holds,
        duplicates_are_known_after_a_restart,
    }
    batch {
        a_batch_begins_at_the_cursor,
        a_batch_keeps_its_limits,
        a_large_event_is_read_by_itself,
        the_backlog_has_every_lane,
        a_node_asks_for_its_own_shards_and_tenants_at_work,
        the_backlog_is_known_after_a_restart,
        an_unknown_tenant_has_no_batch,
    }
    commit {
        everything_is_applied,
        everything_is_there_after_a_restart,
        a_stale_fence_changes_nothing,
        a_wrong_cursor_changes_nothing,
        a_run_is_not_held_under_settings_that_have_changed,
        a_changed_key_changes_nothing,
        a_changed_listing_changes_nothing,
        the_same_commit_twice_is_applied_once,
        a_retry_that_was_applied_unheard_is_not_applied_again,
        one_of_two_that_read_the_same_is_applied,
        emitted_events_wake_their_shards,
        an_emitted_event_that_is_there_is_left_alone,
        what_no_rule_takes_is_worked_off_with_the_commit_that_emits_it,
        an_emitted_event_is_never_worked_off_before_another,
        an_emitted_event_waits_for_its_turn_where_a_rule_may_take_it,
        commits_of_many_tenants_at_once_keep_apart,
    }
    deliveries {
        a_delivery_is_due_until_it_arrived,
        a_retry_is_due_at_its_time,
        deliveries_of_a_key_go_one_after_another,
        a_parked_delivery_holds_its_key_until_a_person_decides,
        named_sinks_and_deliveries_are_left_out,
        a_paused_tenant_delivers_nothing,
        a_flood_leaves_every_other_its_share,
        every_sink_has_its_turn,
        a_node_sends_what_is_at_home_with_it,
        only_what_may_go_has_a_next_time,
        a_deleted_sink_parks_what_is_pending,
        the_same_delivery_is_added_once,
        a_line_goes_on_where_it_stands_whatever_ended_in_its_middle,
        a_late_settlement_does_not_undo_a_persons_decision,
        deliveries_are_found_by_query,
    }
    isolation {
        events_are_the_tenants_own,
        looks_at_the_same_time_are_the_tenants_own,
        batches_are_the_tenants_own,
        runs_are_the_tenants_own,
        decisions_on_runs_touch_the_tenants_own,
        state_is_the_tenants_own,
        timers_are_the_tenants_own,
        deliveries_are_the_tenants_own,
        keys_are_the_tenants_own,
        plugins_are_the_tenants_own,
        settings_are_the_tenants_own,
        usage_is_the_tenants_own,
    }
    leases {
        all_shards_are_free_at_first,
        renewal_keeps_the_fence,
        another_node_waits_for_the_end,
        a_released_shard_is_free_at_once,
        a_takeover_fences_the_late_one,
        nodes_share_what_is_handed_over,
    }
    plugins {
        a_version_is_added_once,
        versions_are_activated_and_rolled_back,
        a_retired_version_is_not_activated,
        versions_are_listed_in_pages,
        plugins_and_versions_have_their_room,
        components_have_their_room,
        retired_versions_make_room,
        switches_and_config_are_kept,
        components_are_shared_but_not_shown,
    }
    reading {
        queries_choose,
        queries_page_in_both_directions,
        a_correlation_gathers_what_followed,
        an_id_finds_one_event_per_source,
        the_tail_is_in_order_over_all_shards,
        the_tail_leaves_other_types_out,
        the_tail_is_bounded_in_bytes,
    }
    releases {
        every_decision_is_in_the_history,
        a_decision_over_something_else_is_refused,
        consent_is_remembered,
        a_candidate_is_counted_until_it_ends,
        of_many_that_end_a_candidate_one_does,
        a_promoted_candidate_is_active,
        nothing_runs_that_nobody_agreed_to,
        a_version_needs_the_preview_that_its_plugin_asks_for,
        what_the_operator_asks_counts_beside_what_the_plugin_asks,
        retired_versions_are_bounded,
        runs_remember_the_versions_that_they_began_with,
        what_plugins_are_allowed_is_kept,
        decisions_are_the_tenants_own,
    }
    recordings {
        recordings_read_back_newest_first,
        the_oldest_go_beyond_a_bound,
        recordings_go_with_the_commit_and_by_age,
        recordings_are_the_tenants_own,
    }
    retention {
        what_is_over_and_old_goes_with_all_that_belongs_to_it,
        what_is_not_over_stays,
        runs_parked_for_too_long_are_dropped,
        deliveries_parked_for_too_long_are_dropped,
        usage_of_old_days_goes,
        more_than_a_slice_goes,
    }
    runs {
        the_last_attempt_stands_for_the_run,
        attempts_are_oldest_first_with_logs,
        runs_are_found_by_query,
        a_page_never_splits_an_event,
        parked_runs_are_listed_by_filter,
    }
    settings {
        rule_sets_are_numbered_and_kept,
        an_edit_of_an_old_rule_set_is_refused,
        one_of_many_edits_at_once_wins,
        sinks_are_replaced_and_deleted,
        secrets_count_their_versions,
        every_change_raises_the_settings,
        the_hosts_own_values_are_set_once,
        settings_are_there_after_a_restart,
    }
    state {
        versions_only_grow,
        keys_are_listed_in_order,
        expired_values_go,
        a_key_that_went_comes_again,
        increments_at_once_are_all_counted,
        bytes_are_counted_per_tenant,
    }
    tenants {
        tenants_are_found_by_name_and_uid,
        a_taken_name_is_a_conflict,
        the_switches_are_kept,
        a_tenant_does_not_undo_its_suspension,
        quotas_are_kept_and_the_tenants_own,
        keys_are_added_found_and_revoked,
    }
    timers {
        a_timer_fires_once,
        a_name_replaces_and_cancels,
        timers_fire_after_a_restart,
        timers_fire_in_order_up_to_the_limit,
    }
    unfinished {
        a_retry_comes_at_its_time,
        runs_of_a_key_wait_in_order,
        a_run_behind_one_that_is_gone_becomes_due,
        a_parked_run_holds_its_key_only,
        a_discarded_run_makes_room,
        redriven_runs_begin_anew_in_order,
        filters_choose_what_is_redriven,
        held_runs_are_resumed_in_order,
        thousands_are_redriven_in_one_call,
        what_waits_is_known_after_a_restart,
        depths_are_counted,
    }
    usage {
        accepted_events_are_each_tenants_own_count,
        usage_is_summed_by_day_plugin_and_rule,
        duplicates_are_not_counted,
    }
}
