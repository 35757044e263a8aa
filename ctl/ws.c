/*
 * ws/: WebSockets to services in the sandbox. A number is a port: each opening of it is a connection of its own. A directory is a
 * connection with a name, which lives until rmdir.
 *
 * Reading starts and consumes nothing: it takes an opening for writing, or `connect`, to connect. Owns the list of names;
 * connections and what came over them are ws_link.c's.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "log_event.h"
#include "ws_link.h"

enum { NAME_MAX_LETTERS = 64, PORT_MAX = 65535 };

struct ws_name {
	struct ws_name *next;
	char *name;
	struct ws_link *link; /* a reference; it is the object of the set */
};

struct ws_room {
	pthread_mutex_t lock; /* covers the list */
	struct ws_name *first;
	struct websocket_set *set;
};

static const char room_key;

static void *room_make(struct sandbox *sb)
{
	struct ws_room *room = calloc(1, sizeof(*room));

	if (!room)
		return NULL;
	if (websocket_set_new(sb, &room->set) < 0) {
		free(room);
		return NULL;
	}
	pthread_mutex_init(&room->lock, NULL);
	return room;
}

static void room_stop(void *data)
{
	websocket_set_stop(((struct ws_room *)data)->set);
}

static void room_release(void *data)
{
	struct ws_room *room = data;

	websocket_set_stop(room->set);
	while (room->first) {
		struct ws_name *n = room->first;
		room->first = n->next;
		ws_link_put(n->link);
		free(n->name);
		free(n);
	}
	websocket_set_free(room->set);
	pthread_mutex_destroy(&room->lock);
	free(room);
}

static struct ws_room *room_of(struct sandbox *sb)
{
	return sandbox_attach(sb, &room_key, room_make, room_stop, room_release);
}

/* --- openings --- */

/* One opening of lines, data or a port. */
struct opening {
	struct ws_link *link; /* a reference */
	struct ws_reader *reader;
	struct ctl_talk *talk;
};

static void opening_close(void *state)
{
	struct opening *o = state;

	if (o->reader)
		ws_reader_free(o->reader);
	ws_link_put(o->link);
	free(o);
}

static void wake_talk(void *arg)
{
	ctl_talk_wake(arg);
}

static void wake_stream(void *arg)
{
	ctl_stream_wake(arg);
}

/* Takes link. */
static int opening_new(
	struct ws_link *link, bool lines, void (*wake)(void *arg), void *arg, struct opening **out)
{
	struct opening *o = calloc(1, sizeof(*o));

	if (!o) {
		ws_link_put(link);
		return -ENOMEM;
	}
	o->link = link;
	int err = ws_reader_new(link, lines, wake, arg, &o->reader);
	if (err) {
		opening_close(o);
		return err;
	}
	*out = o;
	return 0;
}

static int open_talk(const struct ctl_ref *ref, struct ctl_talk *t, bool lines, void **state)
{
	struct opening *o;
	int err = opening_new(ws_link_get(ref->object), lines, wake_talk, t, &o);

	if (err)
		return err;
	o->talk = t;
	*state = o;
	return 0;
}

static int lines_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	(void)c; /* nobody is asked */
	return open_talk(ref, t, true, state);
}

static int data_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	(void)c;
	return open_talk(ref, t, false, state);
}

static int port_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct websocket_spec spec = {.port = (uint16_t)(uintptr_t)ref->object, .path = "/"};
	struct ws_room *room = room_of(ref->sandbox);
	struct ws_link *link;
	struct opening *o;

	if (!room)
		return -ENOMEM;
	int err = ws_link_new(room->set, ref->sandbox, ref->path, true, &link);
	if (!err)
		err = opening_new(link, true, wake_talk, t, &o);
	if (err)
		return err;
	o->talk = t;
	err = ws_link_connect(link, c, &spec);
	if (err) {
		opening_close(o);
		return err;
	}
	*state = o;
	return 0;
}

static int send_line(void *state, struct call *c, const char *text, size_t n)
{
	struct opening *o = state;
	bool valid;

	if (log_event_whole(text, n, &valid) != n || !valid)
		return call_fault(
			c, EILSEQ, NULL, "a text message is UTF-8; `data` of a ws/NAME/ sends any bytes");
	return ws_link_send(o->link, c, true, text, n, !ctl_talk_nonblock(o->talk));
}

static int send_bytes(void *state, struct call *c, const void *p, size_t n)
{
	struct opening *o = state;

	return ws_link_send(o->link, c, false, p, n, !ctl_talk_nonblock(o->talk));
}

static bool opening_writable(void *state)
{
	return ws_link_writable(((struct opening *)state)->link);
}

static ssize_t opening_next(void *state, void *p, size_t n)
{
	return ws_reader_next(((struct opening *)state)->reader, p, n);
}

static const struct ctl_talk_ops port_talk = {.open = port_open,
	.line = send_line,
	.live = true,
	.next = opening_next,
	.writable = opening_writable,
	.close = opening_close};

static const struct ctl_talk_ops lines_talk = {.open = lines_open,
	.line = send_line,
	.live = true,
	.next = opening_next,
	.writable = opening_writable,
	.close = opening_close};

static const struct ctl_talk_ops data_talk = {.open = data_open,
	.bytes = send_bytes,
	.next = opening_next,
	.writable = opening_writable,
	.close = opening_close};

static int lines_view(
	const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	return opening_new(ws_link_get(ref->object), true, wake_stream, s, (struct opening **)cursor);
}

static int data_view(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	return opening_new(ws_link_get(ref->object), false, wake_stream, s, (struct opening **)cursor);
}

static const struct ctl_stream_ops lines_stream = {lines_view, opening_next, opening_close};
static const struct ctl_stream_ops data_stream = {data_view, opening_next, opening_close};

/* A sandbox is not started for an opening that may only read what came. */
static int begin_nothing(const struct ctl_ref *ref, struct call *c)
{
	(void)ref;
	(void)c;
	return 0;
}

/* A port opened to be read alone: that would connect, and reading starts nothing. */
static int port_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)out;
	return call_fault(c, EACCES, NULL,
		"reading alone connects to nothing; open it for both (exec 5<>%s), or mkdir ws/NAME",
		ref->path);
}

/* --- ctl --- */

struct wanted {
	struct websocket_spec spec;
	struct buf protocol;
	const char **headers; /* as many as there are words */
	size_t count;
};

static int parse_option(struct call *c, struct wanted *w, const char *word)
{
	if (strncmp(word, "protocol=", 9) == 0) {
		if (w->protocol.size)
			buf_char(&w->protocol, ',');
		buf_str(&w->protocol, word + 9);
	} else if (strncmp(word, "header=", 7) == 0) {
		w->headers[w->count++] = word + 7;
	} else {
		return call_fault(c, EINVAL, NULL,
			"not understood: %s; write connect PORT /PATH [protocol=P] [header=K:V]...", word);
	}
	return 0;
}

static int parse_connect(struct call *c, int argc, char **argv, struct wanted *w)
{
	int64_t port;
	int at = 2, err = 0;

	if (ctl_parse_number(argv[1], 1, PORT_MAX, &port) < 0)
		return call_fault(c, EINVAL, "INVALID_PORT", "%s: not a port; use 1 to 65535", argv[1]);
	w->spec.port = (uint16_t)port;
	w->spec.path = "/";
	if (at < argc && argv[at][0] == '/')
		w->spec.path = argv[at++];
	for (; !err && at < argc; at++)
		err = parse_option(c, w, argv[at]);
	if (!err)
		err = buf_error(&w->protocol);
	w->spec.protocol = w->protocol.size ? w->protocol.data : NULL;
	w->spec.headers = w->headers;
	return err;
}

static int verb_connect(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	struct wanted w = {.headers = calloc((size_t)argc + 1, sizeof(char *))};

	if (!w.headers)
		return -ENOMEM;
	int err = parse_connect(c, argc, argv, &w);
	if (!err)
		err = ws_link_connect(ref->object, c, &w.spec);
	free(w.headers);
	buf_release(&w.protocol);
	return err;
}

/* Codes that may be sent: those of a protocol error or of no code at all are not for us to say. */
static bool code_ok(int64_t code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
		   (code >= 3000 && code <= 4999);
}

static int verb_close(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	int64_t code = WEBSOCKET_NORMAL;

	if (argc > 1 && (ctl_parse_number(argv[1], 1000, 4999, &code) < 0 || !code_ok(code)))
		return call_fault(c, EINVAL, NULL,
			"%s: not a code to close with; use 1000 to 1003, 1007 to 1014 or 3000 to 4999",
			argv[1]);
	return ws_link_close(ref->object, c, (uint16_t)code);
}

static int show_state(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c; /* nobody is asked */
	ws_link_show(ref->object, out);
	return 0;
}

/* --- names --- */

static bool port_number(const char *name, int64_t *port)
{
	return name[0] >= '1' && name[0] <= '9' && ctl_parse_number(name, 1, PORT_MAX, port) == 0;
}

static bool name_ok(const char *name)
{
	size_t n = strlen(name);
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return n && n <= NAME_MAX_LETTERS && strspn(name, letters) == n && name[0] != '.' &&
		   strspn(name, "0123456789") < n;
}

/* Where name is in the list, or its end. With the lock held. */
static struct ws_name **place_of(struct ws_room *room, const char *name)
{
	struct ws_name **at = &room->first;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	return at;
}

static int name_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct ws_room *room = room_of(dir->sandbox);

	(void)c; /* nobody is asked */
	if (!room)
		return -ENOMEM;
	AUTO_UNLOCK(&room->lock);
	struct ws_name *n = *place_of(room, name);
	if (!n)
		return -ENOENT;
	*object = ws_link_get(n->link);
	return 0;
}

static int name_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct ws_room *room = room_of(dir->sandbox);

	(void)c;
	if (!room)
		return -ENOMEM;
	/* The listing copies names and calls nobody: the lock may be held. */
	AUTO_UNLOCK(&room->lock);
	for (struct ws_name *n = room->first; n; n = n->next) {
		if (!cb(n->name, arg))
			break;
	}
	return 0;
}

static int name_make(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct ws_room *room = room_of(dir->sandbox);
	AUTO_FREE struct ws_name *n = calloc(1, sizeof(*n));
	AUTO_BUF path = BUF_INIT;

	if (!name_ok(name))
		return call_fault(c, EINVAL, NULL,
			"ws/%s: not a name; use up to %d of A-Z a-z 0-9 . _ -, and more than digits", name,
			NAME_MAX_LETTERS);
	if (!room || !n)
		return -ENOMEM;
	buf_printf(&path, "ws/%s", name);
	if (buf_error(&path) || !(n->name = strdup(name)))
		return -ENOMEM;
	int err = ws_link_new(room->set, dir->sandbox, path.data, false, &n->link);
	if (err) {
		free(n->name);
		return err;
	}
	AUTO_UNLOCK(&room->lock);
	struct ws_name **at = place_of(room, name);
	if (*at) {
		ws_link_put(n->link);
		free(n->name);
		return -EEXIST;
	}
	*object = ws_link_get(n->link);
	*at = steal(n);
	return 0;
}

static int name_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	struct ws_room *room = room_of(dir->sandbox);
	struct ws_name *n;

	(void)c; /* it is closed behind */
	if (!room)
		return -ENOMEM;
	{
		AUTO_UNLOCK(&room->lock);
		struct ws_name **at = place_of(room, name);
		n = *at;
		if (!n)
			return -ENOENT;
		*at = n->next;
	}
	ws_link_hang_up(n->link);
	ws_link_put(n->link);
	free(n->name);
	free(n);
	return 0;
}

static void *name_get(void *object)
{
	return ws_link_get(object);
}

static void name_put(void *object)
{
	ws_link_put(object);
}

/* A port is its number: every one is there, and nothing is kept of it. */
static int port_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	int64_t port;

	(void)dir;
	(void)c;
	if (!port_number(name, &port))
		return -ENOENT;
	*object = (void *)(uintptr_t)port;
	return 0;
}

static void *port_get(void *object)
{
	return object;
}

static void port_put(void *object)
{
	(void)object; /* a number */
}

/* --- tables --- */

static const struct ctl_verb name_verbs[] = {
	{"connect", 1, 255, verb_connect, "connect PORT /PATH [protocol=P] [header=K:V]..."},
	{"close", 0, 1, verb_close, "close [CODE]"},
	{NULL, 0, 0, NULL, NULL},
};

static const struct ctl_row name_rows[] = {
	{.name = "ctl",
		.mode = 0666,
		.kind = CTL_VERBS,
		.show = show_state,
		.verbs = name_verbs,
		.grammar = "R connecting, open or closed CODE, then the protocol and the reason if there "
				   "are; W:"},
	{.name = "lines",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = begin_nothing,
		.talk = &lines_talk,
		.stream = &lines_stream,
		.grammar = "W a line is a text message; R each message and a newline (one with newlines "
				   "in it is several lines: read data), the end when it is closed"},
	{.name = "data",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = begin_nothing,
		.talk = &data_talk,
		.stream = &data_stream,
		.grammar = "W a write of up to 1 MiB is a binary message; R bytes as they came, a read "
				   "gives one message if it fits"},
	{.name = NULL}};

static const struct ctl_dir name_dir = {
	.help = "A WebSocket: connect it by ctl. Every reader gets what came from the oldest message "
			"kept (1 MiB) on; rmdir closes it.",
	.rows = name_rows,
	.list_help = true,
};

static const struct ctl_row name_row = {.name = "NAME",
	.mode = 0700,
	.kind = CTL_DIR,
	.dir = &name_dir,
	.grammar = "mkdir; ctl lines data of a connection"};

static const struct ctl_row port_row = {.name = "PORT",
	.mode = 0666,
	.kind = CTL_TALK,
	.talk = &port_talk,
	.show = port_show,
	.grammar = "RW connects to path /; a line written is a text message, a message read is a line, "
			   "the last close closes"};

static const struct ctl_set port_objects = {
	.row = &port_row, .find = port_find, .get = port_get, .put = port_put};

static const struct ctl_set name_objects = {
	.row = &name_row,
	.find = name_find,
	.each = name_each,
	.get = name_get,
	.put = name_put,
	.make = name_make,
	.remove = name_remove,
	.also = &port_objects,
};

static const struct ctl_row set_rows[] = {{.name = NULL}};

const struct ctl_dir ctl_ws_dir = {
	.help =
		"WebSockets to services in the sandbox: open PORT for reading and writing, or mkdir NAME "
		"and write its ctl.",
	.rows = set_rows,
	.set = &name_objects,
};
