/*
 * wait-port and wait-log: calls that wait for something a process does.
 *
 * Each waits on the thread of its request, which ^C ends. A link that breaks does not end them; a sandbox that is
 * known to be gone does (ESTALE).
 */
#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "feed.h"
#include "json_make.h"
#include "json_read.h"
#include "log_match.h"
#include "processes.h"

enum { WATCH_REPLY_MAX = 64 << 10, WATCH_RETRY_FIRST_MS = 100, WATCH_RETRY_MAX_MS = 5000 };

/* ---- wait-port ---- */

struct port_wait {
	int64_t port;
	bool tcp;
	const char *path;
	int64_t status_min, status_max;
	int64_t interval_ms, timeout_ms; /* timeout <0: none */
};

static int port_bad(struct call *c, const char *word)
{
	return call_fault(c, EINVAL, NULL,
		"not understood: %s; use PORT [http|tcp] [path=/] [status=N|N-M] [interval=500ms] "
		"[timeout=DUR]",
		word);
}

static int port_status(const char *text, struct port_wait *w)
{
	const char *dash = strchr(text, '-');
	AUTO_FREE char *low = strndup(text, dash ? (size_t)(dash - text) : strlen(text));

	if (!low)
		return -ENOMEM;
	if (ctl_parse_number(low, 100, 599, &w->status_min) < 0)
		return -EINVAL;
	w->status_max = w->status_min;
	if (dash && ctl_parse_number(dash + 1, w->status_min, 599, &w->status_max) < 0)
		return -EINVAL;
	return 0;
}

static int port_word(struct call *c, const char *word, struct port_wait *w)
{
	int err = 0;

	if (strcmp(word, "tcp") == 0 || strcmp(word, "http") == 0)
		w->tcp = word[0] == 't';
	else if (strncmp(word, "path=/", 6) == 0)
		w->path = word + 5;
	else if (strncmp(word, "status=", 7) == 0)
		err = port_status(word + 7, w);
	else if (strncmp(word, "interval=", 9) == 0)
		err = ctl_parse_duration(word + 9, &w->interval_ms);
	else if (strncmp(word, "timeout=", 8) == 0)
		err = ctl_parse_duration(word + 8, &w->timeout_ms);
	else
		err = -EINVAL;
	return err == -EINVAL ? port_bad(c, word) : err;
}

static int port_parse(struct call *c, int argc, char **argv, struct port_wait *w)
{
	*w = (struct port_wait){
		.path = "/", .status_min = 200, .status_max = 399, .interval_ms = 500, .timeout_ms = -1};
	if (argc == 0)
		return port_bad(c, "(no port)");
	if (ctl_parse_number(argv[0], 1, 65535, &w->port) < 0)
		return call_fault(c, EINVAL, NULL, "not a port: %s; use 1 to 65535", argv[0]);
	for (int i = 1; i < argc; i++) {
		int err = port_word(c, argv[i], w);
		if (err)
			return err;
	}
	return 0;
}

/* One stream of port-watch: events land here on the loop's thread, the waiter looks at them. */
struct port_watch {
	struct call *call;
	pthread_mutex_t lock;
	struct buf text; /* under the lock, as these: */
	int status;
	bool ended;
	int err;
	_Atomic bool changed;
};

static void watch_changed(struct port_watch *w)
{
	atomic_store(&w->changed, true);
	call_wake(w->call);
}

static void watch_on_status(void *arg, int status)
{
	struct port_watch *w = arg;
	AUTO_UNLOCK(&w->lock);

	w->status = status;
}

static bool watch_on_data(void *arg, const void *p, size_t n)
{
	struct port_watch *w = arg;

	pthread_mutex_lock(&w->lock);
	if (w->text.size + n <= WATCH_REPLY_MAX)
		buf_add(&w->text, p, n);
	else
		w->text.failed = true;
	pthread_mutex_unlock(&w->lock);
	watch_changed(w);
	return true;
}

static void watch_on_end(void *arg, int err)
{
	struct port_watch *w = arg;

	pthread_mutex_lock(&w->lock);
	w->ended = true;
	w->err = err;
	pthread_mutex_unlock(&w->lock);
	watch_changed(w);
}

static const struct http_stream_events watch_events = {
	.on_status = watch_on_status,
	.on_data = watch_on_data,
	.on_end = watch_on_end,
};

static bool watch_has_changed(void *arg)
{
	return atomic_load(&((struct port_watch *)arg)->changed);
}

/* One event. 1: ready, and answered; 0: go on; else how the wait ends. */
static int watch_event(
	struct call *c, const struct port_wait *p, struct json_object *event, struct buf *answer)
{
	struct json_object *v;
	const char *type =
		json_object_object_get_ex(event, "type", &v) ? json_object_get_string(v) : NULL;

	if (!type)
		return 0;
	if (strcmp(type, "ready") == 0) {
		buf_str(answer, "ready");
		if (!p->tcp && json_object_object_get_ex(event, "statusCode", &v))
			buf_printf(answer, " %d", json_object_get_int(v));
		buf_char(answer, '\n');
		return 1;
	}
	if (strcmp(type, "process_exited") == 0) {
		if (json_object_object_get_ex(event, "exitCode", &v) && v)
			return call_fault(c, ECHILD, "PROCESS_EXITED_BEFORE_READY",
				"it ended with exit code %d before port %d answered; see logs",
				json_object_get_int(v), (int)p->port);
		return call_fault(c, ECHILD, "PROCESS_EXITED_BEFORE_READY",
			"it ended before port %d answered; see logs", (int)p->port);
	}
	if (strcmp(type, "error") == 0) {
		const char *text =
			json_object_object_get_ex(event, "error", &v) ? json_object_get_string(v) : NULL;
		return call_fault(
			c, ESRCH, "PROCESS_NOT_FOUND", "%s", text ? text : "the server reports an error");
	}
	return 0;
}

/* The whole lines of text, `data: {json}` each; they are taken out. As watch_event. */
static int watch_lines(
	struct call *c, const struct port_wait *p, struct buf *text, struct buf *answer)
{
	const char *newline;
	int got = 0;

	while (got == 0 && text->size > 0 && (newline = memchr(text->data, '\n', text->size))) {
		size_t n = (size_t)(newline - text->data);
		struct json_object *event = NULL;

		if (n > 5 && memcmp(text->data, "data:", 5) == 0)
			(void)json_read(text->data + 5, n - 5, JSON_DEPTH, JSON_LITTLE, &event); /* NULL: odd */
		if (event && json_object_is_type(event, json_type_object))
			got = watch_event(c, p, event, answer);
		json_object_put(event);
		buf_consume(text, n + 1);
	}
	return got;
}

/* What has come. As watch_event; -EAGAIN: the stream broke, try again. */
static int watch_look(
	struct call *c, const struct port_wait *p, struct port_watch *w, struct buf *answer)
{
	AUTO_UNLOCK(&w->lock);
	if (w->text.failed)
		return call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	int got = w->status == 200 ? watch_lines(c, p, &w->text, answer) : 0;
	if (got || !w->ended)
		return got;
	if (w->err == 0 && w->status != 200 && w->status != 503)
		return call_fault(c, w->status == 404 ? ENOTSUP : EIO, NULL,
			"the server answers %d to port-watch", w->status);
	return w->err == -ECANCELED ? -ECANCELED : -EAGAIN;
}

static struct json_object *watch_request(const struct port_wait *p, const char *id)
{
	struct json_object *o = json_object_new_object();

	json_add(o, "port", json_object_new_int64(p->port));
	json_add(o, "mode", json_object_new_string(p->tcp ? "tcp" : "http"));
	json_add(o, "path", json_object_new_string(p->path));
	json_add(o, "statusMin", json_object_new_int64(p->status_min));
	json_add(o, "statusMax", json_object_new_int64(p->status_max));
	json_add(o, "processId", json_object_new_string(id));
	json_add(o, "interval", json_object_new_int64(p->interval_ms));
	return o;
}

/* One attempt, to its end. 1: ready; -EAGAIN: the link broke; else how the wait ends. */
static int watch_once(const struct ctl_ref *ref, struct call *c, const struct port_wait *p,
	const char *body, int64_t deadline, struct buf *answer)
{
	struct port_watch w = {.call = c, .text = BUF_INIT};
	struct http_stream *stream = NULL;
	int got;

	pthread_mutex_init(&w.lock, NULL);
	got = sandbox_stream(ref->sandbox, c, "POST", "/api/port-watch", "application/json", body,
		strlen(body), &watch_events, &w, &stream);
	while (got == 0) {
		/* The server need not say anything while it waits, and a link can break without a word: so it is asked anew now and then. */
		int64_t again = call_now_ms() + sandbox_options(ref->sandbox)->timeout_ms;
		bool last = deadline >= 0 && deadline < again;

		got = call_wait(c, watch_has_changed, &w, last ? deadline : again);
		atomic_store(&w.changed, false);
		if (got == 0)
			got = watch_look(c, p, &w, answer);
		else if (got == -ETIMEDOUT && !last)
			got = -EAGAIN;
	}
	if (stream)
		http_stream_close(stream);
	buf_release(&w.text);
	pthread_mutex_destroy(&w.lock);
	return got;
}

static bool never(void *arg)
{
	(void)arg; /* only the deadline and a cancel end such a wait */
	return false;
}

static int wait_gone(struct call *c)
{
	return call_fault(c, ESTALE, NULL, "the sandbox has ended, and the process with it");
}

/* Sleeps before the next attempt: 0, -EINTR, or -ETIMEDOUT when the wait itself is over. */
static int watch_pause(struct call *c, unsigned tries, int64_t deadline)
{
	int64_t pause = tries < 6 ? WATCH_RETRY_FIRST_MS << tries : WATCH_RETRY_MAX_MS;
	int64_t until = call_now_ms() + pause;
	bool last = deadline >= 0 && deadline < until;
	int err = call_wait(c, never, NULL, last ? deadline : until);

	return err == -ETIMEDOUT && !last ? 0 : err;
}

static int port_wait_for(
	const struct ctl_ref *ref, struct call *c, const struct port_wait *p, struct buf *answer)
{
	struct process *process = ref->object;
	struct json_object *o = watch_request(p, process->id);
	const char *body = json_text_of(o, NULL);
	int64_t deadline = p->timeout_ms >= 0 ? call_now_ms() + p->timeout_ms : -1;
	struct sandbox_status st;
	int err = body ? 0 : -ENOMEM;

	sandbox_get_status(ref->sandbox, &st);
	for (unsigned tries = 0; err == 0; tries++) {
		err = watch_once(ref, c, p, body, deadline, answer);
		if (err != -EAGAIN && err != -EHOSTUNREACH)
			break;
		fault_clear(&c->fault);
		err = watch_pause(c, tries, deadline);
		if (!err &&
			(sandbox_replaced_since(ref->sandbox, st.boot) || !sandbox_has_server(ref->sandbox)))
			err = wait_gone(c);
	}
	json_object_put(o);
	if (err == -ETIMEDOUT)
		return call_fault(
			c, ETIMEDOUT, "PROCESS_READY_TIMEOUT", "port %d was not ready in time", (int)p->port);
	return err > 0 ? 0 : err;
}

/* Only a process that has been started can be waited for. */
static int wait_look(const struct ctl_ref *ref, struct call *c, struct process_info *info)
{
	struct process *p = ref->object;
	int err = process_look(ref, c, p, info);

	if (err != -ENOENT)
		return err;
	if (process_lost(ref->sandbox, p))
		return wait_gone(c);
	AUTO_UNLOCK(&p->set->lock);
	return process_not_started(c, p);
}

int process_call_wait_port(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	AUTO_FREE char **argv = NULL;
	AUTO_PROCESS_INFO info = {0};
	struct port_wait wait;
	int argc;
	int err = ctl_split(c, line, n, &argc, &argv);

	if (!err)
		err = port_parse(c, argc, argv, &wait);
	if (!err)
		err = wait_look(ref, c, &info);
	if (!err && !info.running && info.has_exit)
		return call_fault(c, ECHILD, "PROCESS_EXITED_BEFORE_READY",
			"it ended with exit code %d before port %d answered; see logs", info.exit_code,
			(int)wait.port);
	if (!err && !info.running)
		return call_fault(c, ECHILD, "PROCESS_EXITED_BEFORE_READY",
			"it ended before port %d answered; see logs", (int)wait.port);
	return err ? err : port_wait_for(ref, c, &wait, answer);
}

/* ---- wait-log ---- */

struct log_wait {
	struct call *call;
	struct feed *feed;
	_Atomic bool changed;
	unsigned stream; /* 0: both */
	int64_t timeout_ms;
};

static void log_wake(void *arg)
{
	struct log_wait *w = arg;

	atomic_store(&w->changed, true);
	call_wake(w->call);
}

static bool log_has_changed(void *arg)
{
	return atomic_load(&((struct log_wait *)arg)->changed);
}

/* Takes the options in front; what is left is the pattern, as it stands. */
static int log_parse(struct call *c, const char **line, size_t *n, struct log_wait *w)
{
	const char *p = *line, *end = *line + *n;

	w->timeout_ms = -1;
	for (;;) {
		while (p < end && (*p == ' ' || *p == '\t'))
			p++;
		const char *stop = p;
		while (stop < end && *stop != ' ' && *stop != '\t')
			stop++;
		AUTO_FREE char *word = strndup(p, (size_t)(stop - p));
		if (!word)
			return -ENOMEM;
		if (strncmp(word, "timeout=", 8) == 0) {
			if (ctl_parse_duration(word + 8, &w->timeout_ms) < 0)
				return call_fault(
					c, EINVAL, NULL, "no duration: %s; use 30s, 10m, 500ms", word + 8);
		} else if (strcmp(word, "stream=stdout") == 0) {
			w->stream = 1;
		} else if (strcmp(word, "stream=stderr") == 0) {
			w->stream = 2;
		} else {
			break;
		}
		p = stop;
	}
	if (p == end)
		return call_fault(
			c, EINVAL, NULL, "no pattern; use [timeout=DUR] [stream=stdout|stderr] REGEX");
	*n = (size_t)(end - p);
	*line = p;
	return 0;
}

static int log_lost(struct call *c, const struct feed_item *item)
{
	return call_fault(c, -item->err, NULL, "the link broke while it ran (%s)",
		item->reason ? item->reason : strerror(-item->err));
}

/* What is there now. 1: found; 0: wait; else how the wait ends. */
static int log_take(struct call *c, struct log_wait *w, struct log_match *m, struct buf *answer)
{
	struct feed_item item;
	int got = 0, next;

	while (got == 0 && (next = feed_next(w->feed, &item)) == 1) {
		if (call_cancelled(c))
			return -EINTR;
		if (item.kind == FEED_DATA && (w->stream == 0 || w->stream == item.stream))
			got = log_match_feed(m, c, item.stream, item.p, item.n, answer);
		if (item.kind == FEED_LOST)
			return log_lost(c, &item);
		if (item.kind == FEED_EXIT) {
			got = log_match_end(m, c, answer);
			return got ? got
					   : call_fault(c, ECHILD, "PROCESS_EXITED_BEFORE_READY",
							 "the process ended with exit code %d without such a line", item.code);
		}
	}
	if (got)
		return got;
	return next == -EAGAIN ? 0 : next < 0 ? next : -EPROTO;
}

static int log_wait_for(const struct ctl_ref *ref, struct call *c, struct log_wait *w,
	struct log_match *m, struct buf *answer)
{
	struct process *p = ref->object;
	int64_t deadline = w->timeout_ms >= 0 ? call_now_ms() + w->timeout_ms : -1;
	int got = feed_new(ref->sandbox, log_wake, w, &w->feed);

	if (!got)
		got = feed_attach(w->feed, p->id, 0);
	while (got == 0) {
		got = call_wait(c, log_has_changed, w, deadline);
		atomic_store(&w->changed, false);
		if (got == 0)
			got = log_take(c, w, m, answer);
	}
	feed_close(w->feed);
	if (got == -ETIMEDOUT)
		return call_fault(c, ETIMEDOUT, "PROCESS_READY_TIMEOUT", "there was no such line in time");
	return got > 0 ? 0 : got;
}

int process_call_wait_log(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	struct log_wait w = {.call = c};
	struct log_match *m = NULL;
	AUTO_PROCESS_INFO info = {0};
	int err = log_parse(c, &line, &n, &w);

	if (!err)
		err = log_match_new(c, line, n, &m);
	if (!err)
		err = wait_look(ref, c, &info);
	if (!err)
		err = log_wait_for(ref, c, &w, m, answer);
	log_match_free(m);
	return err;
}
