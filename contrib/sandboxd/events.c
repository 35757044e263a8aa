/*
 * The output of a command as server-sent events: of execute/stream and of process/{id}/stream. Owns the place each
 * stream has reached, and the ends of characters that were cut by a read.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "text.h"

enum { PIECE = 32 << 10, CUT_MAX = 4 };

struct events {
	struct stream stream; /* first: the glue knows it by this */
	struct command *command;
	enum event_style style;
	bool begun;
	uint64_t off;
	struct {
		char bytes[CUT_MAX]; /* the beginning of a character */
		size_t n;
	} cut[3];
};

static struct json_object *event_new(struct events *e, const char *type)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(type));
	json_add(o, "timestamp", text_time(NULL));
	if (e->style == EVENTS_PROCESS)
		json_add(o, "processId", text_json_str(e->command->id));
	return o;
}

static int events_begin(struct events *e, struct buf *out)
{
	struct command *c = e->command;
	struct json_object *o = event_new(e, e->style == EVENTS_PROCESS ? "process_info" : "start");
	json_add(o, "command", text_json(c->text, c->text_size));
	if (e->style == EVENTS_PROCESS)
		json_add(o, "status", json_object_new_string(command_status(c)));
	e->begun = true;
	return event_add(out, o);
}

static int events_data(
	struct events *e, enum spool_view view, const char *p, size_t n, bool last, struct buf *out)
{
	AUTO_BUF raw = BUF_INIT;
	AUTO_BUF text = BUF_INIT;
	buf_add(&raw, e->cut[view].bytes, e->cut[view].n);
	buf_add(&raw, p, n);
	if (buf_error(&raw) < 0)
		return -ENOMEM;
	size_t used = raw.size ? text_repair(&text, raw.data, raw.size, last) : 0;
	e->cut[view].n = raw.size - used;
	if (raw.size > used)
		memcpy(e->cut[view].bytes, raw.data + used, raw.size - used);
	if (!text.size)
		return buf_error(&text);
	struct json_object *o = event_new(e, view == SPOOL_STDERR ? "stderr" : "stdout");
	json_add(o, "data", json_object_new_string_len(text.data, (int)text.size));
	return event_add(out, o);
}

static int events_end(struct events *e, struct buf *out)
{
	struct command *c = e->command;
	int err = events_data(e, SPOOL_STDOUT, "", 0, true, out);
	if (!err)
		err = events_data(e, SPOOL_STDERR, "", 0, true, out);
	if (err)
		return err;
	struct json_object *o = event_new(e, e->style == EVENTS_PROCESS ? "exit" : "complete");
	json_add(o, "exitCode", json_object_new_int(c->exit_code));
	if (e->style == EVENTS_PROCESS) {
		AUTO_BUF words = BUF_INIT;
		const char *status = command_status(c);
		buf_printf(&words, "Process %s with exit code %d", status, c->exit_code);
		json_add(o, "data", text_json_str(words.data ? words.data : ""));
	}
	return event_add(out, o);
}

static int events_next(struct stream *s, struct buf *out)
{
	struct events *e = (struct events *)s;
	struct command *c = e->command;
	if (!e->begun)
		return events_begin(e, out) < 0 ? -ENOMEM : 1;
	int state = command_wait_output(c, SPOOL_BOTH, e->off, text_monotonic_ms() + HTTP_TICK_MS);
	if (state == -ETIMEDOUT)
		return 1;
	if (state == 0)
		return events_end(e, out) < 0 ? -ENOMEM : 0;
	AUTO_FREE char *piece = malloc(PIECE);
	if (!piece)
		return -ENOMEM;
	enum spool_view view = SPOOL_STDOUT;
	uint64_t next = e->off;
	ssize_t n = spool_pread(c->spool, SPOOL_BOTH, piece, PIECE, e->off, &view, &next);
	if (n == -ESPIPE && next > e->off) {
		/* What the bound of the spool took: these events have no word for it. */
		e->off = next;
		return 1;
	}
	if (n <= 0)
		return n < 0 ? (int)n : 1;
	e->off += (uint64_t)n;
	return events_data(e, view, piece, (size_t)n, false, out) < 0 ? -ENOMEM : 1;
}

static void events_release(struct stream *s)
{
	struct events *e = (struct events *)s;
	commands_put(e->command);
	free(e);
}

enum MHD_Result reply_command_events(struct request *r, struct command *c, enum event_style style)
{
	struct events *e = calloc(1, sizeof *e);
	if (!e) {
		commands_put(c);
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	}
	e->stream = (struct stream){.next = events_next, .release = events_release};
	e->command = c;
	e->style = style;
	return reply_stream(r, "text/event-stream", &e->stream);
}
