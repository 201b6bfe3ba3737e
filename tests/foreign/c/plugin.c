// A handler on the bindings of `wit-bindgen c`: the event's data says what to do.

#include <stdlib.h>
#include <string.h>

#include "generated/plugin.h"

// `plugin_string_set` borrows; what is freed by the bindings has to be a copy.
static plugin_string_t text(const char *value) {
    plugin_string_t string;
    plugin_string_set(&string, value);
    return string;
}

static bool asked_for(const plugin_list_u8_t *data, const char *what) {
    size_t length = strlen(what);
    for (size_t at = 0; at + length <= data->len; at++) {
        if (memcmp(data->ptr + at, what, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool fail(exports_bulkhead_plugin_handler_failure_t *failure, uint8_t verdict, const char *reason) {
    memset(failure, 0, sizeof *failure);
    failure->verdict = verdict;
    plugin_string_dup(&failure->reason, reason);
    return false;
}

static bool works(exports_bulkhead_plugin_handler_failure_t *failure) {
    plugin_string_t name = text("threshold"), threshold;
    if (!bulkhead_plugin_context_config(&name, &threshold)) {
        return fail(failure, BULKHEAD_PLUGIN_TYPES_VERDICT_REJECT, "there is no threshold");
    }
    plugin_string_t message = text("works");
    bulkhead_plugin_log_list_attribute_t no_fields = {0};
    bulkhead_plugin_log_write(BULKHEAD_PLUGIN_LOG_LEVEL_INFO, &message, &no_fields);

    plugin_string_t key = text("count"), id;
    bulkhead_plugin_effects_draft_t draft = {
        .type = text("orders.foreign"),
        .content_type = text("application/json"),
        .data = {threshold.ptr, threshold.len},
    };
    bulkhead_plugin_types_refusal_t refusal;
    int64_t sum;
    if (!bulkhead_plugin_state_increment(&key, 1, &sum, &refusal) ||
        !bulkhead_plugin_effects_emit(&draft, &id, &refusal)) {
        bulkhead_plugin_types_refusal_free(&refusal);
        return fail(failure, BULKHEAD_PLUGIN_TYPES_VERDICT_RETRY, "the host refused a call");
    }
    plugin_string_free(&id);
    plugin_string_free(&threshold);
    return true;
}

// What the compiler must not think away.
static volatile uint64_t turns;
static void *volatile taken;

bool exports_bulkhead_plugin_handler_handle(exports_bulkhead_plugin_handler_event_t *event,
                                            exports_bulkhead_plugin_handler_failure_t *failure) {
    bool done = true;
    if (asked_for(&event->data, "\"works\"")) {
        done = works(failure);
    } else if (asked_for(&event->data, "\"rejects\"")) {
        done = fail(failure, BULKHEAD_PLUGIN_TYPES_VERDICT_REJECT, "rejected");
    } else if (asked_for(&event->data, "\"throws\"")) {
        abort();
    } else if (asked_for(&event->data, "\"loops\"")) {
        for (;;) turns++;
    } else if (asked_for(&event->data, "\"allocates\"")) {
        for (;;) {
            taken = malloc(1 << 20);
            if (taken == NULL) abort();
        }
    }
    exports_bulkhead_plugin_handler_event_free(event);
    return done;
}
