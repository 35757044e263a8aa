/*
 * Our own commands: output as frames (frames.h), byte for byte, that a second request can take up
 * again. Owns the place each stream has reached.
 */
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "frames.h"
#include "json_make.h"
#include "pty.h"
#include "routes.h"
#include "session.h"
#include "text.h"

enum { PIECE = 64 << 10, CANCEL_GRACE_MS = 2000, OUTPUT_MAX = 4 << 20, ID_MAX = 128 };

struct frames {
	struct stream stream; /* first: the glue knows it by this */
	struct command *command;
	bool begun;
	uint64_t off;
	int64_t said; /* when the last frame was made */
};

/* when: NULL for now. A start and an end have times of their own: they may be told again after a broken link. */
static void frame_header(struct buf *out, enum frame_type type, enum spool_view stream, size_t n,
	const struct timespec *when)
{
	struct timespec t;
	if (when)
		t = *when;
	else
		clock_gettime(CLOCK_REALTIME, &t);
	buf_u8(out, (uint8_t)type);
	buf_u8(out, (uint8_t)stream);
	buf_u16(out, 0);
	buf_u32(out, (uint32_t)n);
	buf_u64(out, (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000);
}

static void frame_started(struct frames *f, struct buf *out)
{
	frame_header(out, FRAME_STARTED, SPOOL_BOTH, 4, &f->command->begin_time);
	buf_u32(out, (uint32_t)command_pid(f->command));
	f->begun = true;
}

static void frame_exit(struct frames *f, struct buf *out)
{
	struct command *c = f->command;
	frame_header(out, FRAME_EXIT, SPOOL_BOTH, 8, &c->end_time);
	buf_u32(out, (uint32_t)c->exit_code);
	buf_u32(out, (c->timed_out ? FRAME_EXIT_TIMED_OUT : 0u) |
					 (c->cancelled && !c->timed_out ? FRAME_EXIT_CANCELLED : 0u) |
					 (c->session_lost ? FRAME_EXIT_SESSION : 0u));
}

static int frame_data(struct frames *f, struct buf *out)
{
	struct command *c = f->command;
	enum spool_view stream = SPOOL_STDOUT;
	uint64_t next = f->off;
	size_t header = out->size;
	/* The header is made when the length is known, in front of what was read in place. */
	frame_header(out, FRAME_DATA, SPOOL_STDOUT, 0, NULL);
	char *to = buf_reserve(out, PIECE);
	if (!to)
		return -ENOMEM;
	ssize_t n = spool_pread(c->spool, SPOOL_BOTH, to, PIECE, f->off, &stream, &next);
	if (n <= 0)
		out->size = header;
	if (n == -ESPIPE && next > f->off) {
		frame_header(out, FRAME_GAP, SPOOL_BOTH, 8, NULL);
		buf_u64(out, next - f->off);
		f->off = next;
		return buf_error(out);
	}
	if (n <= 0)
		return n < 0 ? (int)n : 0;
	out->data[header + 1] = (char)stream;
	buf_patch_u32(out, header + 4, (uint32_t)n);
	out->size += (size_t)n;
	f->off += (uint64_t)n;
	return 0;
}

static int frames_next(struct stream *s, struct buf *out)
{
	struct frames *f = (struct frames *)s;
	int64_t now = text_monotonic_ms();
	if (!f->begun) {
		frame_started(f, out);
		f->said = now;
		return 1;
	}
	int state = command_wait_output(f->command, SPOOL_BOTH, f->off, now + HTTP_TICK_MS);
	if (state == 0) {
		frame_exit(f, out);
		return 0;
	}
	now = text_monotonic_ms();
	if (state == 1) {
		f->said = now;
		return frame_data(f, out) < 0 ? -EIO : 1;
	}
	if (now - f->said >= FRAME_HEARTBEAT_MS) {
		frame_header(out, FRAME_HEARTBEAT, SPOOL_BOTH, 0, NULL);
		f->said = now;
	}
	return 1;
}

static void frames_release(struct stream *s)
{
	struct frames *f = (struct frames *)s;
	commands_put(f->command);
	free(f);
}

/* Takes the reference c. */
static enum MHD_Result reply_frames(struct request *r, struct command *c, uint64_t from)
{
	struct frames *f = calloc(1, sizeof *f);
	if (!f) {
		commands_put(c);
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	}
	f->stream = (struct stream){.next = frames_next, .release = frames_release};
	f->command = c;
	f->off = from;
	return reply_stream(r, "application/octet-stream", &f->stream);
}

static bool id_is_good(const char *id, size_t n)
{
	if (!id || !n || n > ID_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)id[i]) && !strchr("._-", id[i] ? id[i] : '/'))
			return false;
	return true;
}

/* Splits the body: the JSON stays in it, stdin is a borrowed view. */
static bool split_body(struct request *r, const char **input, size_t *input_size, struct buf *json)
{
	struct reader reader;
	size_t n;
	reader_init(&reader, r->body.data, r->body.size);
	const void *p = reader_bytes(&reader, &n);
	if (!p)
		return false;
	buf_add(json, p, n);
	*input = (const char *)reader.p;
	*input_size = reader.left;
	return buf_error(json) == 0;
}

/* Without a sessionId: none, other than in the API. */
static bool get_session(struct request *r, struct command_spec *spec, enum MHD_Result *out)
{
	enum session_kind kind;
	const char *name;
	if (!run_session(r, false, &kind, &name, out))
		return false;
	bool beside = json_flag(r->json, "beside", spec->listed) || spec->columns;
	return run_place(r, name ? kind : SESSION_NONE, name, !beside, spec, out);
}

static bool get_terminal(struct request *r, struct command_spec *spec, enum MHD_Result *out)
{
	struct json_object *v;
	if (!json_object_object_get_ex(r->json, "terminal", &v) || !v)
		return true;
	if (pty_size_of(v, &spec->columns, &spec->rows)) {
		/* What is typed comes later. */
		spec->input_size = 0;
		return true;
	}
	*out = reply_error(r, ERR_VALIDATION, NULL, NULL,
		"terminal is {\"cols\",\"rows\"}, each from 1 to %d", PTY_SIDE_MAX);
	return false;
}

enum MHD_Result route_frames_start(struct request *r)
{
	enum MHD_Result result;
	struct command_spec spec;
	const char *input = NULL;
	size_t input_size = 0, n = 0;
	AUTO_BUF json = BUF_INIT;
	if (!split_body(r, &input, &input_size, &json))
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "The body is shorter than its JSON");
	/* request_json reads the request's body: for the time of the call it is the JSON alone. */
	struct buf whole = r->body;
	r->body = json;
	bool good = request_json(r, true, &result);
	r->body = whole;
	if (!good || !run_spec(r, false, &spec, &result))
		return result;
	spec.id = json_text(r->json, "id", &n);
	if (!id_is_good(spec.id, n))
		return reply_error(
			r, ERR_VALIDATION, NULL, NULL, "Invalid id: 1 to 128 of A-Z a-z 0-9 . _ -");
	spec.listed = json_flag(r->json, "list", false);
	spec.input = input;
	spec.input_size = input_size;
	if (spec.timeout_ms == 0)
		spec.timeout_ms = -1;
	struct command *c;
	if (!get_terminal(r, &spec, &result) || !get_session(r, &spec, &result))
		return result;
	int err = commands_start(r->server->commands, &spec, EXISTS_ATTACH, &c, NULL);
	session_put(spec.session);
	if (err < 0)
		return run_failed(r, ERR_STREAM_START, "command.start", &spec, err);
	return reply_frames(r, c, 0);
}

static enum MHD_Result no_command(struct request *r)
{
	return reply_error(r, ERR_PROCESS_NOT_FOUND, NULL, NULL, "No command has the id %s", r->id);
}

/* A new reference to one that runs or ran; NULL: there is none. */
static struct command *find_command(struct request *r)
{
	struct command *c = commands_find(r->server->commands, r->id);
	if (c && command_wait_started(c) < 0) {
		commands_put(c);
		return NULL;
	}
	return c;
}

/* An unsigned number of the query. False: there is none, or it is none. */
static bool query_number(struct request *r, const char *name, uint64_t *v)
{
	const char *s = request_query(r, name);
	if (!s || !isdigit((unsigned char)*s))
		return false;
	char *end;
	errno = 0;
	*v = strtoull(s, &end, 10);
	return !*end && !errno && *v <= INT64_MAX;
}

enum MHD_Result route_frames_attach(struct request *r)
{
	uint64_t from = 0;
	if (request_query(r, "from") && !query_number(r, "from", &from))
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "from must be a number");
	struct command *c = find_command(r);
	if (!c)
		return no_command(r);
	if (from > spool_size(c->spool, SPOOL_BOTH)) {
		commands_put(c);
		return reply_error(r, ERR_RANGE, NULL, NULL, "from lies beyond the output");
	}
	return reply_frames(r, c, from);
}

/* A signal's number from its name (with or without SIG) or number; 0: it is none. */
static int signal_number(struct json_object *v)
{
	if (json_object_is_type(v, json_type_int)) {
		int64_t n = json_object_get_int64(v);
		return n > 0 && n <= SIGRTMAX ? (int)n : 0;
	}
	if (!json_object_is_type(v, json_type_string))
		return 0;
	const char *name = json_object_get_string(v);
	if (isdigit((unsigned char)*name)) {
		char *end;
		long n = strtol(name, &end, 10);
		return !*end && n > 0 && n <= SIGRTMAX ? (int)n : 0;
	}
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int sig = 1; sig < SIGRTMIN; sig++) {
		const char *known = sigabbrev_np(sig);
		if (known && strcasecmp(known, name) == 0)
			return sig;
	}
	return 0;
}

enum MHD_Result route_frames_signal(struct request *r)
{
	enum MHD_Result result;
	if (!request_json(r, true, &result))
		return result;
	struct json_object *v = NULL;
	bool cancel = json_flag(r->json, "cancel", false);
	int sig = json_object_object_get_ex(r->json, "signal", &v) ? signal_number(v) : 0;
	if (!cancel && !sig)
		return reply_error(r, ERR_VALIDATION, NULL, NULL,
			"signal must be the name or the number of a signal, or cancel true");
	if (!id_is_good(r->id, strlen(r->id)))
		return no_command(r);
	struct command *c = find_command(r);
	if (!c) {
		/* The start may still be under way on another connection. */
		if (cancel && commands_refuse(r->server->commands, r->id) < 0)
			return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
		return no_command(r);
	}
	int err = cancel ? command_cancel(c, CANCEL_GRACE_MS) : command_signal(c, sig);
	commands_put(c);
	if (err < 0)
		return reply_error(r, ERR_COMMAND_NOT_FOUND, NULL, NULL, "The command %s has ended", r->id);
	return reply_json(r, 200, answer_new());
}

static struct json_object *three(struct command *c, uint64_t (*of)(struct spool *, enum spool_view))
{
	struct json_object *o = json_object_new_object();
	json_add(o, "both", json_object_new_uint64(of(c->spool, SPOOL_BOTH)));
	json_add(o, "stdout", json_object_new_uint64(of(c->spool, SPOOL_STDOUT)));
	json_add(o, "stderr", json_object_new_uint64(of(c->spool, SPOOL_STDERR)));
	return o;
}

/* The environment as it was asked for, repaired. */
static struct json_object *describe_env(struct command *c)
{
	struct json_object *o = json_object_new_object();
	if (!c->env)
		return o;
	json_object_object_foreach(c->env, name, value)
	{
		if (!value)
			continue;
		AUTO_BUF key = BUF_INIT;
		text_repair(&key, name, strlen(name), true);
		if (buf_error(&key))
			json_tear(o, NULL);
		else if (key.data)
			json_add(o, key.data, text_json_str(json_object_get_string(value)));
	}
	return o;
}

enum MHD_Result route_frames_get(struct request *r)
{
	struct command *c = find_command(r);
	if (!c)
		return no_command(r);
	struct json_object *o = json_object_new_object();
	json_add(o, "id", text_json_str(c->id));
	json_add(o, "pid", json_object_new_int(command_pid(c)));
	json_add(o, "command", text_json(c->text, c->text_size));
	json_add(o, "cwd", text_json_str(c->cwd));
	json_add(o, "env", describe_env(c));
	if (c->timeout_ms < 0)
		json_add_as(o, "timeoutMs", NULL);
	else
		json_add(o, "timeoutMs", json_object_new_int64(c->timeout_ms));
	json_add(o, "status", json_object_new_string(command_status(c)));
	json_add(o, "startTime", text_time(&c->begin_time));
	bool ended = command_ended(c);
	if (ended) {
		json_add(o, "endTime", text_time(&c->end_time));
		json_add(o, "exitCode", json_object_new_int(c->exit_code));
	}
	json_add(o, "timedOut", json_object_new_boolean(ended && c->timed_out));
	json_add(o, "sizes", three(c, spool_size));
	json_add(o, "first", three(c, spool_first));
	commands_put(c);
	struct json_object *answer = answer_new();
	json_add(answer, "command", o);
	return reply_json(r, 200, answer);
}

static enum MHD_Result send_output(
	struct request *r, struct command *c, enum spool_view view, uint64_t offset, uint64_t length)
{
	AUTO_BUF b = BUF_INIT;
	char size[32], first[32];
	const char *headers[] = {"X-Size", size, "X-First", first, NULL};
	uint64_t next = 0;
	if (length > OUTPUT_MAX)
		length = OUTPUT_MAX;
	uint64_t end = spool_size(c->spool, view);
	if (offset < end && length > end - offset)
		length = end - offset;
	char *to = buf_reserve(&b, (size_t)length);
	ssize_t n = to ? spool_pread(c->spool, view, to, (size_t)length, offset, NULL, &next) : -ENOMEM;
	snprintf(size, sizeof size, "%llu", (unsigned long long)spool_size(c->spool, view));
	snprintf(first, sizeof first, "%llu",
		(unsigned long long)(n == -ESPIPE ? next : spool_first(c->spool, view)));
	if (n == -ESPIPE)
		return reply_bytes(r, error_status(ERR_RANGE), "application/octet-stream", &b, headers);
	if (n < 0)
		return reply_error(
			r, ERR_INTERNAL, NULL, NULL, "the output cannot be read: %s", strerrordesc_np((int)-n));
	b.size = (size_t)n;
	return reply_bytes(r, 200, "application/octet-stream", &b, headers);
}

enum MHD_Result route_frames_output(struct request *r)
{
	static const char *const views[] = {"both", "stdout", "stderr"};
	const char *wanted = request_query(r, "view");
	uint64_t offset = 0, length = OUTPUT_MAX;
	int view = wanted ? -1 : SPOOL_BOTH;
	for (int i = 0; wanted && i < 3; i++)
		if (strcmp(wanted, views[i]) == 0)
			view = i;
	if (view < 0 || (request_query(r, "offset") && !query_number(r, "offset", &offset)) ||
		(request_query(r, "length") && !query_number(r, "length", &length)))
		return reply_error(r, ERR_VALIDATION, NULL, NULL,
			"view is both, stdout or stderr; offset and length are numbers");
	struct command *c = find_command(r);
	if (!c)
		return no_command(r);
	enum MHD_Result result = send_output(r, c, (enum spool_view)view, offset, length);
	commands_put(c);
	return result;
}

enum MHD_Result route_frames_forget(struct request *r)
{
	int err = commands_forget(r->server->commands, r->id);
	if (err == -EBUSY)
		return reply_error(r, ERR_RESOURCE_BUSY, NULL, NULL, "The command %s runs", r->id);
	return err < 0 ? no_command(r) : reply_json(r, 200, answer_new());
}
