/*
 * pty/: terminals with programs at them. Made by writing pty/new, gone with rmdir, which hangs up. Reading starts and consumes
 * nothing: every reader of data gets the newest part of what came, and then what comes.
 *
 * Owns the list of a sandbox's terminals and their numbers. The room's lock covers the list and all references to its
 * objects; it is not held over a request.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "env.h"
#include "processes.h"
#include "terminal.h"

struct pty {
	struct pty *next;
	struct pty_room *room; /* a reference */
	unsigned refs;
	uint64_t number;
	bool there;   /* it has started and was not removed: the list has a reference */
	bool started; /* with success */
	bool stopped;
	struct terminal *terminal;
	struct process_settle settle; /* caches of before its end */
};

struct pty_room {
	pthread_mutex_t lock;
	unsigned refs; /* the sandbox's and each pty's */
	struct pty *first;
	uint64_t numbers;
	bool stopped;
	struct process_set
		*set; /* borrowed: attached before, released after; not used once a pty is stopped */
};

/* Each takes a connection of the sandbox's server while its program runs, and those are needed for other things. */
enum { TERMINALS_MAX = 128 };

static const char room_key;

static void *room_make(struct sandbox *sb)
{
	struct pty_room *room = calloc(1, sizeof(*room));

	(void)sb; /* what is made there is its maker's */
	if (!room)
		return NULL;
	pthread_mutex_init(&room->lock, NULL);
	room->refs = 1;
	return room;
}

static void room_put(struct pty_room *room)
{
	pthread_mutex_lock(&room->lock);
	bool last = --room->refs == 0;
	pthread_mutex_unlock(&room->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&room->lock);
	free(room);
}

static void pty_put(void *object)
{
	struct pty *p = object;
	struct pty_room *room = p->room;

	pthread_mutex_lock(&room->lock);
	bool last = --p->refs == 0;
	for (struct pty **at = &room->first; last && *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	pthread_mutex_unlock(&room->lock);
	if (!last)
		return;
	if (p->terminal)
		terminal_put(p->terminal); /* from here on its end is not told */
	if (!p->stopped && room->set)
		process_settle_leave(room->set, &p->settle);
	free(p);
	room_put(room);
}

static void *pty_get(void *object)
{
	struct pty *p = object;
	AUTO_UNLOCK(&p->room->lock);

	p->refs++;
	return p;
}

/* One that is not stopped yet, with a reference. */
static struct pty *take_living(struct pty_room *room)
{
	AUTO_UNLOCK(&room->lock);

	for (struct pty *p = room->first; p; p = p->next) {
		if (!p->stopped && p->started) {
			p->stopped = true;
			p->refs++;
			return p;
		}
	}
	return NULL;
}

static void room_stop(void *data)
{
	struct pty_room *room = data;
	struct pty *p;
	{
		AUTO_UNLOCK(&room->lock);
		room->stopped = true;
	}
	while ((p = take_living(room))) {
		terminal_stop(p->terminal);
		process_settle_leave(room->set, &p->settle);
		pty_put(p);
	}
}

static struct pty *take_there(struct pty_room *room, uint64_t number)
{
	AUTO_UNLOCK(&room->lock);

	for (struct pty *p = room->first; p; p = p->next) {
		if (p->there && (!number || p->number == number)) {
			p->refs++;
			return p;
		}
	}
	return NULL;
}

/* Out of the list's hands; false: it was out already. */
static bool forget(struct pty *p)
{
	pthread_mutex_lock(&p->room->lock);
	bool there = p->there;
	p->there = false;
	pthread_mutex_unlock(&p->room->lock);
	if (there)
		pty_put(p);
	return there;
}

static void room_release(void *data)
{
	struct pty_room *room = data;
	struct pty *p;

	room_stop(room);
	while ((p = take_there(room, 0))) {
		(void)forget(p); /* it was there, and nobody else is at work */
		pty_put(p);
	}
	room_put(room);
}

static struct pty_room *room_of(struct sandbox *sb)
{
	/* First, so that it is released after this room. */
	struct process_set *set = process_set_of(sb);
	struct pty_room *room =
		set ? sandbox_attach(sb, &room_key, room_make, room_stop, room_release) : NULL;

	if (room) {
		AUTO_UNLOCK(&room->lock);
		if (!room->set) /* it is one and the same for ever, and read without the lock */
			room->set = set;
	}
	return room;
}

/* --- new --- */

static void on_settled(void *arg)
{
	terminal_tell_end(((struct pty *)arg)->terminal);
}

/* Whoever reads of its end must not meet files of before it. */
static void on_ended(void *arg, struct terminal *t)
{
	struct pty *p = arg;

	{
		/* It may have come before its start returned, which sets the same; others read it without the lock. */
		AUTO_UNLOCK(&p->room->lock);
		if (!p->terminal)
			p->terminal = t;
	}
	process_settle_ask(p->room->set, &p->settle);
	if (process_settled(p->room->set, &p->settle))
		terminal_tell_end(t);
}

static int pty_new(struct pty_room *room, struct call *c, struct pty **out)
{
	struct pty *p = calloc(1, sizeof(*p));
	unsigned count = 0;

	if (!p)
		return -ENOMEM;
	p->refs = 1;
	p->room = room;
	p->settle.wake = on_settled;
	p->settle.arg = p;
	AUTO_UNLOCK(&room->lock);
	struct pty **at = &room->first;
	/* One that was removed stays in the list as long as the kernel knows it. */
	for (; *at; at = &(*at)->next)
		count += (*at)->there || !(*at)->started;
	if (count >= TERMINALS_MAX) {
		free(p);
		return call_fault(c, EMFILE, NULL,
			"there are %u terminals already; rmdir pty/N ends one that is not needed", count);
	}
	room->refs++;
	p->number = ++room->numbers;
	*at = p;
	*out = p;
	return 0;
}

static int parse_side(struct call *c, const char *word, unsigned *side)
{
	int64_t n;

	if (ctl_parse_number(word, 1, TERMINAL_SIDE_MAX, &n) < 0)
		return call_fault(c, EINVAL, NULL, "%s: not a size; write COLS ROWS, each from 1 to %d",
			word, TERMINAL_SIDE_MAX);
	*side = (unsigned)n;
	return 0;
}

static int start(struct pty *p, const struct ctl_ref *ref, struct call *c, const char *shell,
	unsigned columns, unsigned rows)
{
	struct terminal_spec spec = {
		.columns = columns, .rows = rows, .shell = shell, .ended = on_ended, .arg = p};
	struct terminal *t;
	int err = sandbox_barrier(ref->sandbox, c);

	if (!err)
		err = ctl_env_merge(ref->sandbox, NULL, &spec.env);
	if (!err)
		err = terminal_start(ref->sandbox, c, &spec, &t);
	json_object_put(spec.env);
	pthread_mutex_lock(&p->room->lock);
	/* After a failure none is there, whatever was told of its end. */
	if (err || !p->terminal)
		p->terminal = err ? NULL : t;
	bool stopped = p->room->stopped;
	p->started = !err && !stopped;
	p->there = p->started;
	p->refs += p->there;
	pthread_mutex_unlock(&p->room->lock);
	if (err || !stopped)
		return err;
	terminal_stop(t);
	return call_fault(c, ESTALE, NULL, "the sandbox is gone");
}

static int new_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	struct pty_room *room = room_of(ref->sandbox);
	AUTO_FREE char **argv = NULL;
	unsigned columns = TERMINAL_COLUMNS, rows = TERMINAL_ROWS;
	int argc;
	int err = ctl_split(c, line, n, &argc, &argv);

	if (err)
		return err;
	if (argc == 1 || argc > 3)
		return call_fault(c, EINVAL, NULL, "not understood; write COLS ROWS [SHELL], or nothing");
	if (argc > 1 &&
		((err = parse_side(c, argv[0], &columns)) < 0 || (err = parse_side(c, argv[1], &rows)) < 0))
		return err;
	struct pty *p = NULL;
	err = room ? pty_new(room, c, &p) : -ENOMEM;
	if (err)
		return err;
	err = start(p, ref, c, argc > 2 ? argv[2] : NULL, columns, rows);
	if (!err)
		buf_printf(answer, "%llu\n", (unsigned long long)p->number);
	pty_put(p);
	return err;
}

/* --- data and wait --- */

struct opening {
	struct terminal *terminal; /* borrowed: the opening holds its node */
	struct terminal_reader *reader;
	struct sandbox *sandbox; /* likewise */
	struct ctl_talk *talk;
};

static void wake_talk(void *arg)
{
	ctl_talk_wake(arg);
}

static void wake_stream(void *arg)
{
	ctl_stream_wake(arg);
}

static int opening_new(const struct ctl_ref *ref, bool end_alone, void (*wake)(void *arg),
	void *arg, struct opening **out)
{
	struct opening *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->terminal = ((struct pty *)ref->object)->terminal;
	o->sandbox = ref->sandbox;
	int err = terminal_reader_new(o->terminal, end_alone, wake, arg, &o->reader);
	if (err) {
		free(o);
		return err;
	}
	*out = o;
	return 0;
}

static void opening_close(void *state)
{
	struct opening *o = state;

	terminal_reader_free(o->reader);
	free(o);
}

static ssize_t opening_next(void *state, void *p, size_t n)
{
	return terminal_reader_next(((struct opening *)state)->reader, p, n);
}

static int data_open(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state)
{
	struct opening *o;
	int err = opening_new(ref, false, wake_talk, t, &o);

	(void)c; /* nobody is asked */
	if (err)
		return err;
	o->talk = t;
	*state = o;
	return 0;
}

static int data_type(void *state, struct call *c, const void *p, size_t n)
{
	struct opening *o = state;

	/*
	 * A line that is typed may be a command, and that must see what was written before it. Whoever is at the keyboard is not kept
	 * from it by a file that cannot be sent, though.
	 */
	if (memchr(p, '\r', n) || memchr(p, '\n', n)) {
		int err = sandbox_barrier(o->sandbox, c);
		if (err == -EINTR)
			return err;
		fault_clear(&c->fault);
	}
	return terminal_type(o->terminal, c, p, n, !ctl_talk_nonblock(o->talk));
}

static int data_view(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	return opening_new(ref, false, wake_stream, s, (struct opening **)cursor);
}

static int wait_view(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	(void)c;
	return opening_new(ref, true, wake_stream, s, (struct opening **)cursor);
}

/* A sandbox is not started for what ran in it. */
static int begin_nothing(const struct ctl_ref *ref, struct call *c)
{
	(void)ref;
	(void)c;
	return 0;
}

static const struct ctl_talk_ops data_talk = {
	.open = data_open, .bytes = data_type, .next = opening_next, .close = opening_close};
static const struct ctl_stream_ops data_stream = {data_view, opening_next, opening_close};
static const struct ctl_stream_ops wait_stream = {wait_view, opening_next, opening_close};

/* --- ctl --- */

static int verb_resize(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	unsigned columns = 0, rows = 0;
	int err = parse_side(c, argv[1], &columns);

	(void)argc;
	if (!err)
		err = parse_side(c, argv[2], &rows);
	return err ? err : terminal_resize(((struct pty *)ref->object)->terminal, c, columns, rows);
}

static int verb_signal(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	return terminal_signal(((struct pty *)ref->object)->terminal, c, argv[1]);
}

static int show_size(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	unsigned columns, rows;

	(void)c; /* nobody is asked */
	terminal_size(((struct pty *)ref->object)->terminal, &columns, &rows);
	buf_printf(out, "resize %u %u\n", columns, rows);
	return 0;
}

/* --- the directory --- */

static int pty_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	struct pty_room *room = room_of(dir->sandbox);
	int64_t n;

	(void)c; /* nobody is asked */
	if (!room)
		return -ENOMEM;
	if (name[0] < '1' || name[0] > '9' || ctl_parse_number(name, 1, INT64_MAX, &n) < 0)
		return -ENOENT;
	*object = take_there(room, (uint64_t)n);
	return *object ? 0 : -ENOENT;
}

static int pty_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct pty_room *room = room_of(dir->sandbox);
	char name[24]; /* a number of ours */

	(void)c;
	if (!room)
		return -ENOMEM;
	/* The listing copies names and calls nobody: the lock may be held. */
	AUTO_UNLOCK(&room->lock);
	for (struct pty *p = room->first; p; p = p->next) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)p->number);
		if (p->there && !cb(name, arg))
			break;
	}
	return 0;
}

static int pty_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	void *object;
	int err = pty_find(dir, c, name, &object);

	if (err)
		return err;
	struct pty *p = object;
	if (forget(p))
		terminal_hang_up(p->terminal, c);
	pty_put(p);
	return 0;
}

static const struct ctl_verb pty_verbs[] = {
	{"resize", 2, 2, verb_resize, "resize COLS ROWS"},
	{"signal", 1, 1, verb_signal, "signal NAME"},
	{NULL, 0, 0, NULL, NULL},
};

static const struct ctl_row pty_rows[] = {
	{.name = "data",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = begin_nothing,
		.talk = &data_talk,
		.stream = &data_stream,
		.grammar = "W what is typed; R the terminal's bytes, from the newest 256 KiB on, to its "
				   "program's end"},
	{.name = "ctl",
		.mode = 0666,
		.kind = CTL_VERBS,
		.show = show_size,
		.verbs = pty_verbs,
		.grammar = "R the size, can be written back; W:"},
	{.name = "wait",
		.mode = 0444,
		.kind = CTL_STREAM,
		.stream = &wait_stream,
		.grammar = "R blocks until its program has ended, then the exit code, or `unknown`"},
	{.name = NULL}};

static const struct ctl_dir one_dir = {
	.help = "A terminal and the program at it. rmdir hangs up.",
	.rows = pty_rows,
	.list_help = true,
};

static const struct ctl_row one_row = {
	.name = "N", .mode = 0700, .kind = CTL_DIR, .dir = &one_dir, .grammar = "data ctl wait"};

static const struct ctl_set pty_objects = {
	.row = &one_row,
	.find = pty_find,
	.each = pty_each,
	.get = pty_get,
	.put = pty_put,
	.remove = pty_remove,
};

static const struct ctl_row dir_rows[] = {
	{.name = "new",
		.mode = 0666,
		.kind = CTL_CALL,
		.call = new_call,
		.empty = true,
		.grammar =
			"W [COLS ROWS [SHELL]] opens a terminal (80 24, bash or else sh), 128 at most; RW "
			"its number"},
	{.name = NULL}};

const struct ctl_dir ctl_pty_dir = {
	.help = "Terminals in the sandbox. Each lives until its rmdir.",
	.rows = dir_rows,
	.set = &pty_objects,
};
