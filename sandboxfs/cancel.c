/*
 * Requests to end a command, sent without anybody waiting for them and repeated until they are answered, the sandbox is gone or a
 * minute is over (two seconds when the mount ends). Owned by the keeper from output_cancel on; frees itself. Must not know why a command is ended.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "cleanup.h"
#include "keeper.h"
#include "output.h"

enum {
	CANCEL_RETRY_MS = 100,
	CANCEL_RETRY_DOUBLINGS = 5,
	CANCEL_QUIET_MS = 10000,
	CANCEL_FOR_MS = 60000,
	CANCEL_AT_END_MS = 2000 /* the mount ends: so long it is tried still */
};

struct cancel {
	struct kept kept;
	char *path;
	int64_t deadline;
	struct http_stream *stream; /* the keeper's thread */
	int64_t retry_at;           /* likewise; 0: a request is out */
	unsigned tries;             /* likewise */
	_Atomic int status;
	bool ended; /* under the keeper's lock: the request is over */
};

static void cancel_on_status(void *arg, int status)
{
	atomic_store(&((struct cancel *)arg)->status, status);
}

static bool cancel_on_data(void *arg, const void *p, size_t n)
{
	(void)arg, (void)p, (void)n; /* the status says all */
	return true;
}

static void cancel_on_end(void *arg, int err)
{
	struct cancel *x = arg;

	(void)err; /* without a status it is tried again, whatever it was */
	AUTO_UNLOCK(&x->kept.keeper->lock);
	x->ended = true;
	pthread_cond_broadcast(&x->kept.keeper->wake);
}

static const struct http_stream_events cancel_events = {
	.on_status = cancel_on_status,
	.on_data = cancel_on_data,
	.on_end = cancel_on_end,
};

static void cancel_free(struct cancel *x)
{
	free(x->path);
	free(x);
}

static void cancel_send(struct cancel *x)
{
	static const char body[] = "{\"cancel\":true}";
	struct sandbox *sb = x->kept.keeper->sb;
	struct http_request r = {
		.target = sandbox_target(sb),
		.method = "POST",
		.path = x->path,
		.type = "application/json",
		.body = body,
		.size = sizeof(body) - 1,
		.timeout_ms = CANCEL_QUIET_MS,
	};

	atomic_store(&x->status, 0);
	if (!r.target ||
		http_stream_open(server_http(sandbox_server(sb)), &r, &cancel_events, x, &x->stream) < 0) {
		x->stream = NULL;
		cancel_on_end(x, -EHOSTUNREACH);
	}
}

static bool cancel_tend(struct kept *item, int64_t now, int64_t *next)
{
	struct cancel *x = (struct cancel *)item;
	struct keeper *k = item->keeper;
	if (k->stopping) {
		int64_t end = sandbox_end_by(k->sb), soon = now + CANCEL_AT_END_MS;
		end = end < soon ? end : soon;
		x->deadline = end < x->deadline ? end : x->deadline;
	}
	bool over = x->deadline <= now || (k->stopping && !sandbox_target(k->sb));

	if (x->ended || over) {
		struct http_stream *stream = steal(x->stream);
		x->ended = false;
		pthread_mutex_unlock(&k->lock);
		if (stream)
			http_stream_close(stream);
		int status = atomic_load(&x->status);
		if (over || (status != 0 && status < 500)) {
			keeper_remove(item);
			cancel_free(x);
			pthread_mutex_lock(
				&k->lock); /* its own thread holds no reference, but keeps it alive */
			return true;
		}
		x->tries += x->tries < CANCEL_RETRY_DOUBLINGS;
		x->retry_at = now + (CANCEL_RETRY_MS << x->tries);
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (x->retry_at && x->retry_at <= now) {
		x->retry_at = 0;
		pthread_mutex_unlock(&k->lock);
		cancel_send(x);
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (x->retry_at)
		keeper_sooner(next, x->retry_at);
	keeper_sooner(next, x->deadline);
	return false;
}

int output_cancel(struct sandbox *sb, const char *id)
{
	struct cancel *x = calloc(1, sizeof(*x));
	AUTO_BUF path = BUF_INIT;

	buf_printf(&path, "/api/sandboxfs/commands/%s/signal", id);
	if (!x || !(x->path = buf_steal(&path))) {
		free(x);
		return -ENOMEM;
	}
	x->kept.tend = cancel_tend;
	x->retry_at = 1;
	x->deadline = call_now_ms() + CANCEL_FOR_MS;
	int err = keeper_add(sb, &x->kept);
	if (err)
		cancel_free(x);
	return err;
}
