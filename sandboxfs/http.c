/*
 * HTTP over libcurl's multi interface. See http.h.
 *
 * One thread owns every curl handle. Others put transfers and orders into a list and wake it; what they share with
 * it is under http.lock, which is never held over a call into curl or a callback.
 * At most MAX_EXCHANGES plain exchanges run at once, the rest waits its turn here: a thousand readers
 * must not open a thousand connections. Streams, which can last for hours, do not count.
 */
#include "http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "http_impl.h"

enum { DEFAULT_MAX_REPLY = 64 << 20 };

static void order(struct http_stream *x, enum order what)
{
	struct http *h = x->http;

	pthread_mutex_lock(&h->lock);
	x->orders |= what;
	if (what == ORDER_START)
		x->number = ++h->last;
	if (!x->queued && !x->finished) {
		x->queued = true;
		x->next_order = NULL;
		*h->orders_tail = x;
		h->orders_tail = &x->next_order;
	}
	pthread_mutex_unlock(&h->lock);
	curl_multi_wakeup(h->multi);
}

/* --- what others call --- */

int http_new(struct http **out)
{
	struct http *h = calloc(1, sizeof *h);
	int err;

	if (!h)
		return -ENOMEM;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->changed, NULL);
	h->orders_tail = &h->orders;
	h->multi = curl_multi_init();
	if (!h->multi) {
		free(h);
		return -ENOMEM;
	}
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 2L * MAX_EXCHANGES);
	err = pthread_create(&h->thread, NULL, http_loop, h);
	if (err) {
		curl_multi_cleanup(h->multi);
		free(h);
		return -err;
	}
	*out = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_mutex_unlock(&h->lock);
	curl_multi_wakeup(h->multi);
	pthread_join(h->thread, NULL);
	while (h->spares)
		curl_easy_cleanup(h->spare[--h->spares]);
	curl_multi_cleanup(h->multi);
	pthread_cond_destroy(&h->changed);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static void release(struct http_stream *x)
{
	free(x->method);
	free(x->url);
	free(x->type);
	free(x->body_copy);
	free(x);
}

static struct http_stream *transfer_new(struct http *h, const struct http_request *r, bool copy)
{
	struct http_stream *x = calloc(1, sizeof *x);
	AUTO_BUF url = BUF_INIT;

	if (!x)
		return NULL;
	x->http = h;
	x->target = r->target;
	x->timeout_ms = r->timeout_ms;
	x->method = strdup(r->method);
	buf_str(&url, r->target->base);
	buf_str(&url, r->path);
	x->url = buf_steal(&url);
	x->type = r->type ? strdup(r->type) : NULL;
	x->body = r->body;
	x->size = r->size;
	if (copy && r->size) {
		x->body_copy = malloc(r->size);
		if (x->body_copy)
			memcpy(x->body_copy, r->body, r->size);
		x->body = x->body_copy;
	}
	if (!x->method || !x->url || (r->type && !x->type) || (r->size && !x->body)) {
		release(x);
		return NULL;
	}
	x->running = r->target->running;
	if (x->running)
		atomic_fetch_add(x->running, 1);
	return x;
}

static bool is_done(void *arg)
{
	return ((struct http_stream *)arg)->done;
}

/* For the second wait, which a cancelled call must not leave: the loop still uses the body. */
static void wait_done(struct call *c, struct http_stream *x)
{
	AUTO_UNLOCK(&c->lock);

	while (!x->done)
		pthread_cond_wait(&c->wake, &c->lock);
}

bool http_target_is_here(const struct http_target *t)
{
	static const char *const hosts[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		size_t n = strlen(hosts[i]);
		if (strncmp(t->base, hosts[i], n) == 0 && strchr(":/", t->base[n]))
			return true;
	}
	return t->unix_path != NULL;
}

int http_exchange(
	struct http *h, struct call *c, const struct http_request *r, struct http_reply *out)
{
	struct http_stream *x;
	int err = call_may_wait(c);

	out->status = 0;
	out->retry_after_ms = 0;
	out->body = (struct buf)BUF_INIT;
	if (err) /* not even begun: whether it was done must not be in doubt */
		return err;
	x = transfer_new(h, r, false);
	if (!x)
		return -ENOMEM;
	x->call = c;
	x->reply = out;
	x->max_reply = r->max_reply ? r->max_reply : DEFAULT_MAX_REPLY;
	order(x, ORDER_START);
	err = call_wait(c, is_done, x, -1);
	if (err) {
		order(x, ORDER_CANCEL);
		wait_done(c, x);
	}
	err = x->result;
	release(x);
	if (err)
		buf_release(&out->body);
	return err;
}

void http_abort(struct http *h, const struct http_target *target, int err)
{
	pthread_mutex_lock(&h->lock);
	while (h->abort && h->abort != target && !h->stop)
		pthread_cond_wait(&h->changed, &h->lock);
	h->abort = target;
	h->abort_err = err;
	h->abort_last = h->last;
	pthread_mutex_unlock(&h->lock);
	curl_multi_wakeup(h->multi);
}

int http_stream_open(struct http *h, const struct http_request *r,
	const struct http_stream_events *ev, void *arg, struct http_stream **out)
{
	struct http_stream *x = transfer_new(h, r, true);

	if (!x)
		return -ENOMEM;
	x->events = ev;
	x->arg = arg;
	*out = x;
	order(x, ORDER_START);
	return 0;
}

void http_stream_resume(struct http_stream *s)
{
	order(s, ORDER_RESUME);
}

void http_stream_close(struct http_stream *s)
{
	struct http *h = s->http;

	order(s, ORDER_CANCEL);
	pthread_mutex_lock(&h->lock);
	while (!s->done)
		pthread_cond_wait(&h->changed, &h->lock);
	pthread_mutex_unlock(&h->lock);
	release(s);
}

void http_counts(struct http *h, uint64_t *requests, uint64_t *sent, uint64_t *received)
{
	AUTO_UNLOCK(&h->lock);

	*requests = h->requests;
	*sent = h->sent;
	*received = h->received;
}
