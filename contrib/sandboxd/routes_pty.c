/*
 * Terminals over HTTP: a WebSocket to one, and what our own client uses beside it. Owns the place that each
 * connection has reached; terminals are commands (pty.h), whose output is kept, and who live as long as their program does, whoever is
 * connected.
 *
 *   GET /ws/pty?sessionId=S[&cols=80][&rows=24][&shell=bash]   as in the API: one terminal per session, shared, begun by the first who comes, and
 *       again by the first who comes after its end. Binary frames are its bytes; the last 256 KiB come first, then {"type":"ready"}.
 *       -> {"type":"resize","cols","rows"}; <- {"type":"error","message"}; <- {"type":"exit","code"[,"signal"]}, then the closing (1000).
 *   GET /ws/pty?command=ID[&from=N]    of a command with a terminal (frames.h): from byte N of its output on. <- {"type":"replay","offset":M} comes
 *       first: M > N if what lay between is no longer kept.
 * <- {"type":"lost","bytes":N}: the connection was so slow that they are no longer kept.
 *   POST .../commands/ID/input, resize: see frames.h
 */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "pty.h"
#include "routes.h"
#include "session.h"
#include "text.h"
#include "websocket.h"

enum { REPLAY = 256 << 10, PIECE = 64 << 10, PENDING_MAX = 256 << 10, TYPED_MAX = 64 << 10 };

struct attached {
	struct command *command;
	int news; /* an eventfd */
	uint64_t off, ready_at;
	bool tell_offset, ready, over;
	struct buf typed; /* and not yet taken by the terminal */
};

/* --- one connection --- */

static struct json_object *control(const char *type)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(type));
	return o;
}

static void send_number(struct websocket *w, const char *type, const char *name, uint64_t n)
{
	struct json_object *o = control(type);
	json_add(o, name, json_object_new_uint64(n));
	if (websocket_send_json(w, o) < 0)
		websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
}

static void send_error(struct websocket *w, const char *message)
{
	struct json_object *o = control("error");
	json_add(o, "message", json_object_new_string(message));
	if (websocket_send_json(w, o) < 0)
		websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
}

/* Types what has been kept for it. */
static void attached_type(struct attached *a)
{
	while (a->typed.size) {
		ssize_t n = pty_type(a->command, UINT64_MAX, a->typed.data, a->typed.size);
		if (n == 0)
			return;
		/* Nobody reads it any more. */
		if (n < 0)
			n = (ssize_t)a->typed.size;
		buf_consume(&a->typed, (size_t)n);
	}
}

static void on_control(struct websocket *w, struct attached *a, const char *p, size_t n)
{
	unsigned columns, rows;
	AUTO_BUF text = BUF_INIT;
	buf_add(&text, p, n);
	struct json_object *o =
		!buf_error(&text) && n && strlen(text.data) == n ? json_tokener_parse(text.data) : NULL;
	const char *type = json_object_is_type(o, json_type_object) ? json_text(o, "type", NULL) : NULL;
	if (!type)
		send_error(w, "Invalid control message: it must be a JSON object with a type");
	else if (strcmp(type, "resize") != 0)
		send_error(w, "Unknown control message: resize is the only one");
	else if (!json_object_object_get_ex(o, "cols", NULL) ||
			 !json_object_object_get_ex(o, "rows", NULL) || !pty_size_of(o, &columns, &rows))
		send_error(w, "Invalid size: cols and rows must be from 1 to 10000");
	else
		(void)pty_resize(a->command, columns, rows); /* one that has ended needs no size */
	json_object_put(o);
}

static void on_message(struct websocket *w, void *arg, bool binary, const void *p, size_t n)
{
	struct attached *a = arg;
	if (!binary) {
		on_control(w, a, p, n);
		return;
	}
	buf_add(&a->typed, p, n);
	if (buf_error(&a->typed) < 0)
		websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
	attached_type(a);
	if (a->typed.size > TYPED_MAX)
		websocket_pause(w, true);
}

/* Sends one piece of output. False: there is none just now. */
static bool send_piece(struct websocket *w, struct attached *a, char *piece)
{
	uint64_t next = a->off;
	ssize_t n = spool_pread(a->command->spool, SPOOL_STDOUT, piece, PIECE, a->off, NULL, &next);
	if (n == -ESPIPE && next > a->off) {
		send_number(w, "lost", "bytes", next - a->off);
		a->off = next;
		return true;
	}
	if (n <= 0)
		return false;
	a->off += (uint64_t)n;
	if (websocket_send(w, true, piece, (size_t)n) < 0)
		websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
	return true;
}

static void send_exit(struct websocket *w, struct command *c)
{
	struct json_object *o = control("exit");
	json_add(o, "code", json_object_new_int(c->exit_code));
	const char *name = c->exit_code > 128 ? sigabbrev_np(c->exit_code - 128) : NULL;
	if (name)
		json_add(o, "signal", json_object_new_string(name));
	if (websocket_send_json(w, o) < 0)
		websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
	websocket_close(w, WEBSOCKET_NORMAL, "the terminal has ended");
}

static void send_news(struct websocket *w, struct attached *a, char *piece)
{
	struct command *c = a->command;
	/* Asked first: what is there after this is all there is. */
	bool ended = command_ended(c);
	bool more = true;
	while (more && websocket_pending(w) < PENDING_MAX) {
		if (!a->ready && a->off >= a->ready_at) {
			a->ready = true;
			if (websocket_send_json(w, control("ready")) < 0)
				websocket_close(w, WEBSOCKET_INTERNAL, "out of memory");
		}
		more = send_piece(w, a, piece);
	}
	if (!more && ended && !a->over) {
		a->over = true;
		send_exit(w, c);
	}
}

static void run(struct websocket *w, void *arg)
{
	struct attached *a = arg;
	AUTO_FREE char *piece = malloc(PIECE);
	if (!piece)
		return;
	if (a->tell_offset)
		send_number(w, "replay", "offset", a->off);
	for (;;) {
		uint64_t count;
		(void)!read(a->news, &count, sizeof count); /* only empties it, before the look */
		send_news(w, a, piece);
		attached_type(a);
		if (a->typed.size <= TYPED_MAX)
			websocket_pause(w, false);
		/* Its output may be what makes room in the terminal: that is told by news; its reading is not. */
		AUTO_FD int terminal = a->typed.size ? pty_borrow(a->command) : -1;
		struct pollfd others[2] = {
			{.fd = a->news, .events = POLLIN}, {.fd = terminal, .events = POLLOUT}};
		if (!websocket_step(w, others, 2, HTTP_TICK_MS))
			return;
	}
}

static void attached_release(void *arg)
{
	struct attached *a = arg;
	command_unwatch(a->command, a->news);
	commands_put(a->command);
	close(a->news);
	buf_release(&a->typed);
	free(a);
}

/* Takes c. */
static enum MHD_Result attach(struct request *r, struct command *c, uint64_t from, bool tell_offset)
{
	static const struct websocket_handler handler = {
		.run = run, .message = on_message, .release = attached_release};
	struct attached *a = calloc(1, sizeof *a);
	int news = a ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	if (news < 0 || command_watch(c, news) < 0) {
		free(a);
		if (news >= 0)
			close(news);
		commands_put(c);
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	}
	uint64_t first = spool_first(c->spool, SPOOL_STDOUT);
	*a = (struct attached){.command = c,
		.news = news,
		.off = from > first ? from : first,
		.ready_at = spool_size(c->spool, SPOOL_STDOUT),
		.tell_offset = tell_offset};
	return reply_websocket(r, &handler, a);
}

/* --- the routes --- */

static bool query_side(struct request *r, const char *name, unsigned otherwise, unsigned *side)
{
	const char *s = request_query(r, name);
	*side = otherwise;
	if (!s)
		return true;
	char *end;
	long n = strtol(s, &end, 10);
	if (!*s || *end || n < 1 || n > PTY_SIDE_MAX)
		return false;
	*side = (unsigned)n;
	return true;
}

/* The terminal of a session, begun if there is none that runs. 0 and a new reference, or a negative errno. */
static int session_terminal(struct request *r, struct session *s, unsigned columns, unsigned rows,
	const char *shell, struct command **out)
{
	AUTO_BUF id = BUF_INIT;
	AUTO_BUF text = BUF_INIT;
	/* No client can choose an id with a colon. */
	buf_printf(&id, "terminal:%s", session_id(s));
	buf_str(&text, "exec ");
	buf_shell_quote(&text, shell);
	if (buf_error(&id) < 0 || buf_error(&text) < 0)
		return -ENOMEM;
	struct command_spec spec = {.id = id.data,
		.text = text.data,
		.size = text.size,
		.session = s,
		.timeout_ms = -1,
		.no_timeout = true,
		.columns = columns,
		.rows = rows};
	int err = -EBUSY;
	while (err == -EBUSY) {
		struct command *c = commands_find(r->server->commands, id.data);
		if (c && !command_wait_started(c) && c->session == s && !command_ended(c)) {
			*out = c;
			return 0;
		}
		commands_put(c);
		err = commands_start(r->server->commands, &spec, EXISTS_REPLACE, out, NULL);
	}
	return err;
}

static enum MHD_Result attach_session(struct request *r)
{
	const char *name = request_query(r, "sessionId");
	const char *shell = request_query(r, "shell");
	unsigned columns, rows;
	if (!query_side(r, "cols", PTY_COLUMNS, &columns) || !query_side(r, "rows", PTY_ROWS, &rows))
		return reply_text(r, 400, "cols and rows must be from 1 to 10000\n");
	struct session *s;
	int err = sessions_open(r->server->sessions, name, &s);
	if (err < 0)
		return reply_error(r, ERR_INTERNAL, NULL, "pty.open", "Session '%s' cannot be created: %s",
			name, strerrordesc_np(-err));
	struct command *c;
	err = session_terminal(r, s, columns, rows, shell && *shell ? shell : r->server->shell, &c);
	session_put(s);
	if (err < 0)
		return reply_error(r, ERR_INTERNAL, NULL, "pty.open", "The terminal cannot be opened: %s",
			strerrordesc_np(-err));
	uint64_t size = spool_size(c->spool, SPOOL_STDOUT);
	return attach(r, c, size > REPLAY ? size - REPLAY : 0, false);
}

static enum MHD_Result no_command(struct request *r, const char *id)
{
	return reply_error(r, ERR_PROCESS_NOT_FOUND, NULL, NULL, "No command has the id %s", id);
}

/* New reference to a command with a terminal, or NULL and *out is the answer. */
static struct command *find_terminal(struct request *r, const char *id, enum MHD_Result *out)
{
	struct command *c = commands_find(r->server->commands, id);
	if (!c || command_wait_started(c) < 0) {
		commands_put(c);
		*out = no_command(r, id);
		return NULL;
	}
	if (!c->columns) {
		commands_put(c);
		*out = reply_error(r, ERR_VALIDATION, NULL, NULL, "The command %s has no terminal", id);
		return NULL;
	}
	return c;
}

static enum MHD_Result attach_command(struct request *r, const char *id)
{
	enum MHD_Result result;
	uint64_t from = 0;
	const char *text = request_query(r, "from");
	char *end = NULL;
	if (text)
		from = strtoull(text, &end, 10);
	struct command *c = find_terminal(r, id, &result);
	if (!c)
		return result;
	if (text && (*text < '0' || *text > '9' || *end || from > spool_size(c->spool, SPOOL_STDOUT))) {
		commands_put(c);
		return reply_error(r, ERR_RANGE, NULL, NULL, "from lies beyond the output");
	}
	return attach(r, c, from, true);
}

enum MHD_Result route_ws_pty(struct request *r)
{
	const char *command = request_query(r, "command");
	const char *session = request_query(r, "sessionId");
	if (!websocket_is_wanted(r))
		return reply_error(r, ERR_NOT_FOUND, NULL, NULL, "The requested endpoint was not found");
	if (command)
		return attach_command(r, command);
	if (!session || !session[strspn(session, " \t\r\n\v\f")])
		return reply_text(r, 400, "sessionId query parameter is required\n");
	return attach_session(r);
}

enum MHD_Result route_frames_input(struct request *r)
{
	enum MHD_Result result;
	uint64_t at = UINT64_MAX;
	const char *text = request_query(r, "at");
	char *end = NULL;
	if (text)
		at = strtoull(text, &end, 10);
	if (text && (*text < '0' || *text > '9' || *end || at > INT64_MAX))
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "at must be a number");
	struct command *c = find_terminal(r, r->id, &result);
	if (!c)
		return result;
	ssize_t n = 0;
	size_t done = 0;
	while (done < r->body.size) {
		n = pty_type(c, text ? at + done : at, r->body.data + done, r->body.size - done);
		if (n < 0 || (n == 0 && client_gone(r->client)))
			break;
		if (n == 0)
			pty_wait(c, HTTP_TICK_MS);
		done += (size_t)n;
	}
	uint64_t typed = pty_typed(c);
	commands_put(c);
	if (n == -ERANGE)
		return reply_error(r, ERR_RANGE, NULL, NULL, "at lies beyond what was typed");
	if (n < 0)
		return reply_error(r, ERR_COMMAND_NOT_FOUND, NULL, NULL, "The command %s has ended", r->id);
	struct json_object *o = answer_new();
	json_add(o, "typed", json_object_new_uint64(typed));
	return reply_json(r, 200, o);
}

enum MHD_Result route_frames_resize(struct request *r)
{
	enum MHD_Result result;
	unsigned columns, rows;
	if (!request_json(r, true, &result))
		return result;
	if (!pty_size_of(r->json, &columns, &rows))
		return reply_error(
			r, ERR_VALIDATION, NULL, NULL, "cols and rows must be from 1 to %d", PTY_SIDE_MAX);
	struct command *c = find_terminal(r, r->id, &result);
	if (!c)
		return result;
	int err = pty_resize(c, columns, rows);
	commands_put(c);
	if (err < 0)
		return reply_error(r, ERR_COMMAND_NOT_FOUND, NULL, NULL, "The command %s has ended", r->id);
	return reply_json(r, 200, answer_new());
}
