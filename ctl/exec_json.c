/*
 * exec.json: the same as exec with all options in and events out. A request is one JSON object (a line of a
 * conversation, or a whole document); a run is told by the SDK's exec events, one a line (log_event.h), from
 * start to exit or error.
 *
 * The spool keeps no times: a piece of output carries the time at which it was read here, between the run's start and end.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "conversation.h"
#include "json_make.h"
#include "kinds.h"
#include "log_event.h"

enum { PIECE = 32 * 1024 };

/* --- a request --- */

static int take_string(
	struct call *c, struct json_object *o, const char *key, const char **s, size_t *n)
{
	struct json_object *v;
	*s = NULL;
	*n = 0;
	if (!json_object_object_get_ex(o, key, &v) || !v)
		return 0;
	if (!json_object_is_type(v, json_type_string))
		return call_fault(c, EINVAL, NULL, "\"%s\" is to be a string", key);
	*s = json_object_get_string(v);
	*n = (size_t)json_object_get_string_len(v);
	return 0;
}

/* One that goes where a NUL would end it. */
static int take_text(
	struct call *c, struct json_object *o, const char *key, const char **s, size_t *n)
{
	int err = take_string(c, o, key, s, n);
	if (!err && *s && memchr(*s, 0, *n))
		err = call_fault(c, EINVAL, NULL, "\"%s\" holds a NUL byte; stdin may", key);
	return err;
}

static int take_env(struct call *c, struct json_object *o, struct conversation_request *out)
{
	struct json_object *env;
	size_t count = 0;
	if (!json_object_object_get_ex(o, "env", &env) || !env)
		return 0;
	if (!json_object_is_type(env, json_type_object))
		return call_fault(c, EINVAL, NULL, "\"env\" is to be an object of strings");
	out->env = calloc((size_t)json_object_object_length(env) + 1, sizeof *out->env);
	if (!out->env)
		return -ENOMEM;
	json_object_object_foreach(env, key, value)
	{
		const char *text;
		size_t n;
		AUTO_BUF pair = BUF_INIT;
		if (!value)
			continue; /* as in the SDK: undefined sets nothing */
		if (!*key || strchr(key, '='))
			return call_fault(c, EINVAL, NULL, "\"env\": \"%s\" cannot be a name", key);
		int err = take_text(c, env, key, &text, &n);
		if (err)
			return err;
		buf_printf(&pair, "%s=", key);
		buf_add(&pair, text, n);
		out->env[count] = buf_steal(&pair);
		if (!out->env[count++])
			return -ENOMEM;
	}
	return 0;
}

static int take_timeout(struct call *c, struct json_object *o, struct conversation_request *out)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, "timeout", &v) || !v)
		return 0;
	double ms = json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double)
					? json_object_get_double(v)
					: -1;
	if (!(ms >= 0 && ms <= 1e15))
		return call_fault(c, EINVAL, NULL, "\"timeout\" is to be a number of milliseconds");
	out->timeout_ms = ms > 0 && ms < 1 ? 1 : (int64_t)ms;
	return 0;
}

static int letter_value(char ch)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = ch ? strchr(letters, ch) : NULL;
	return p ? (int)(p - letters) : -1;
}

/* Base64 as `base64` writes it: letters, padding, line ends. False: it is none. */
static bool from_base64(const char *s, size_t n, struct buf *out)
{
	uint32_t bits = 0;
	unsigned count = 0, padding = 0;
	/* One table for the whole text, instead of a search for each of what may be 14 million letters. */
	signed char value[256];
	for (int i = 0; i < 256; i++)
		value[i] = (signed char)letter_value((char)i);
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\n' || s[i] == '\r')
			continue;
		int v = value[(unsigned char)s[i]];
		if (s[i] == '=' && padding < 2) {
			padding++;
			v = 0;
		} else if (v < 0 || padding) {
			return false;
		}
		bits = bits << 6 | (uint32_t)v;
		if (++count % 4 == 0) {
			const char bytes[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
			buf_add(out, bytes, 3 - padding);
			bits = 0;
		}
	}
	/* Padding may be left out. */
	if (count % 4 >= 2 && !padding) {
		const char bytes[2] = {
			count % 4 == 2 ? (char)(bits >> 4) : (char)(bits >> 10), (char)(bits >> 2)};
		buf_add(out, bytes, count % 4 - 1);
		return true;
	}
	return count % 4 == 0;
}

static int take_input(struct call *c, struct json_object *o, struct conversation_request *out)
{
	const char *plain, *coded;
	size_t n, coded_n;
	int err = take_string(c, o, "stdin", &plain, &n);
	if (!err)
		err = take_string(c, o, "stdinBase64", &coded, &coded_n);
	if (err)
		return err;
	if (plain && coded)
		return call_fault(c, EINVAL, NULL, "\"stdin\" and \"stdinBase64\": write one of them");
	if (plain)
		buf_add(&out->input, plain, n);
	if (coded && !from_base64(coded, coded_n, &out->input))
		return call_fault(c, EINVAL, NULL, "\"stdinBase64\" is not base64");
	return buf_error(&out->input);
}

static int take_cwd(struct call *c, struct json_object *o, struct conversation_request *out)
{
	const char *cwd;
	size_t n;
	AUTO_BUF path = BUF_INIT;
	int err = take_text(c, o, "cwd", &cwd, &n);
	if (err || !n)
		return err;
	/* The server would take a relative one from a directory of its own. */
	buf_printf(&path, "%s%s", *cwd == '/' ? "" : "/workspace/", cwd);
	out->cwd = buf_steal(&path);
	return out->cwd ? 0 : -ENOMEM;
}

/* The SDK's word for none is none here as well. */
static int take_session(struct call *c, struct json_object *o, struct conversation_request *out)
{
	const char *session;
	size_t n;
	int err = take_text(c, o, "sessionId", &session, &n);
	if (err || !n || strcmp(session, "__DISABLE_SESSION__") == 0)
		return err;
	if (strspn(session, " \t\r\n\v\f") == n)
		return call_fault(c, EINVAL, NULL, "\"sessionId\" is blank; write an id, or leave it out");
	out->session = strdup(session);
	return out->session ? 0 : -ENOMEM;
}

static int take_request(struct call *c, struct json_object *o, struct conversation_request *out)
{
	static const char *const keys[] = {"command", "cwd", "env", "timeout", "sessionId", "stdin",
		"stdinBase64", "stream", "onOutput", "origin", NULL};
	const char *command;
	size_t n;
	int err = ctl_check_keys(c, o, keys);
	if (err)
		return err;
	err = take_text(c, o, "command", &command, &n);
	if (!err && !command)
		err = call_fault(
			c, EINVAL, NULL, "\"command\" is missing; write {\"command\":\"...\"} on one line");
	if (!err)
		err = take_session(c, o, out);
	if (!err)
		err = take_cwd(c, o, out);
	if (!err)
		err = take_env(c, o, out);
	if (!err)
		err = take_timeout(c, o, out);
	if (!err)
		err = take_input(c, o, out);
	if (err)
		return err;
	buf_add(&out->command, command, n);
	return buf_error(&out->command);
}

static bool is_blank(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr(" \t\r\n", text[i]) || !text[i])
			return false;
	return true;
}

static int parse(
	struct call *c, const char *text, size_t n, bool line, struct conversation_request *out)
{
	struct json_object *o;
	if (is_blank(text, n) || (line && *text == '#'))
		return 1;
	int err = ctl_parse_json(c, text, n, &o);
	if (err)
		return err;
	err = take_request(c, o, out);
	json_object_put(o);
	return err;
}

/* --- events --- */

struct teller {
	struct run *run; /* borrowed */
	uint64_t off;
	bool started, ended;
	struct log_event_state state;
	struct buf out; /* lines not yet read */
};

static void *teller_new(struct run *r)
{
	struct teller *t = calloc(1, sizeof *t);
	if (t) {
		t->run = r;
		log_event_init(&t->state, NULL);
	}
	return t;
}

static void teller_free(void *reader)
{
	struct teller *t = reader;
	log_event_release(&t->state);
	buf_release(&t->out);
	free(t);
}

static uint64_t micros(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_nsec / 1000;
}

static void tell_start(struct teller *t)
{
	struct timespec started, ended;
	const char *command = run_command(t->run);
	struct json_object *text = json_object_new_string(command);
	run_times(t->run, &started, &ended);
	const char *quoted = json_text_of(text, NULL);
	if (!quoted) {
		t->out.failed = true;
		json_object_put(text);
		return;
	}
	buf_printf(&t->out, "{\"type\":\"start\",\"command\":%s,\"run\":%llu,\"timestamp\":\"", quoted,
		(unsigned long long)run_number(t->run));
	ctl_put_time(&t->out, &started);
	buf_str(&t->out, "\"}\n");
	json_object_put(text);
}

static void tell_end(struct teller *t)
{
	struct timespec started, ended;
	struct fault fault = {0};
	run_times(t->run, &started, &ended);
	struct feed_item item = {.kind = FEED_EXIT, .time = micros(&ended)};
	if (run_state(t->run) == RUN_ENDED) {
		item.code = run_exit(t->run, &item.timed_out);
	} else {
		run_fault(t->run, &fault);
		item.kind = FEED_LOST;
		item.err = fault.err ? -fault.err : -EIO;
		item.reason = fault.message;
	}
	log_event_put(&t->state, &item, &t->out);
	fault_clear(&fault);
}

/* Time of a piece: now, but not after the end. */
static uint64_t piece_time(struct teller *t)
{
	struct timespec started, ended, now;
	run_times(t->run, &started, &ended);
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t at = micros(&now);
	return ended.tv_sec && micros(&ended) < at ? micros(&ended) : at;
}

/* Appends the next lines. 0, -EAGAIN, or another error. */
static int tell_more(struct teller *t, bool settled)
{
	enum spool_view stream = SPOOL_STDOUT;
	uint64_t lost;
	AUTO_FREE char *piece = malloc(PIECE);
	if (!piece)
		return -ENOMEM;
	ssize_t got =
		spool_read_on(run_spool(t->run), SPOOL_BOTH, piece, PIECE, &t->off, &stream, &lost);
	if (got < 0)
		return (int)got;
	struct feed_item item = {.kind = FEED_DATA,
		.stream = stream == SPOOL_STDERR ? 2 : 1,
		.time = piece_time(t),
		.p = piece,
		.n = (size_t)got};
	if (lost) {
		struct feed_item gap = {
			.kind = FEED_GAP, .stream = item.stream, .time = item.time, .gap = lost};
		log_event_put(&t->state, &gap, &t->out);
	}
	if (got)
		log_event_put(&t->state, &item, &t->out);
	if (got || lost)
		return buf_error(&t->out);
	if (!settled)
		return -EAGAIN;
	tell_end(t);
	t->ended = true;
	return buf_error(&t->out);
}

/* Lost bytes are an event of their own here, no error. */
static ssize_t teller_next(void *reader, bool settled, void *p, size_t n, uint64_t *lost)
{
	struct teller *t = reader;
	(void)lost;
	if (!t->started) {
		tell_start(t);
		t->started = true;
	}
	while (!t->out.size && !t->ended) {
		int err = tell_more(t, settled);
		if (err)
			return err;
	}
	if (buf_error(&t->out))
		return -ENOMEM;
	if (n > t->out.size)
		n = t->out.size;
	if (n)
		memcpy(p, t->out.data, n);
	buf_consume(&t->out, n);
	return (ssize_t)n;
}

static const struct conversation_format format = {.name = "exec.json",
	.json = true,
	.parse = parse,
	.reader_new = teller_new,
	.reader_next = teller_next,
	.reader_free = teller_free};

static int json_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	(void)c;
	return conversation_open(ref, t, &format, state);
}

const struct ctl_talk_ops ctl_exec_json_talk = {.open = json_open, CONVERSATION_TALK};

/* --- reading alone: the events of the newest request so far --- */

static int stream_open(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	(void)s; /* it never waits, so nothing wakes it */
	return conversation_view_open(ref, &format, cursor);
}

const struct ctl_stream_ops ctl_exec_json_stream = {.open = stream_open, CONVERSATION_VIEW};
