/*
 * The thread that owns every curl handle: starts transfers, obeys orders, ends what is over, silent or aborted. See http_impl.h.
 * Calls back into those whom a transfer belongs to, never with a lock held but their call's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "http_impl.h"
#include "log.h"

enum { SLOWEST_PER_MS = 4, TICK_MS = 200, HEAD_MOST = 256 << 10 };

static int error_of(const struct http_stream *x, CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return x->head_done ? 0 : -ECONNRESET;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_WRITE_ERROR:
		return x->too_big ? -EFBIG : -ENOMEM;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_SSL_CONNECT_ERROR: /* a handshake that broke off; a certificate has codes of its own */
		return -ECONNRESET;
	default:
		return -EPROTO;
	}
}

/* --- callbacks of curl, on the loop thread --- */

static void tell_status(struct http_stream *x)
{
	long status = 0;

	if (x->status_told || !x->events)
		return;
	x->status_told = true;
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	if (x->events->on_status)
		x->events->on_status(x->arg, (int)status);
}

/*
 * To curl an answer that ends among its headers is one without a body: the head must have come to its own end. And it keeps headers as long
 * as they come.
 */
static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
	struct http_stream *x = arg;

	(void)one;
	x->head += n;
	if (x->head > HEAD_MOST) {
		x->too_big = true;
		return 0;
	}
	x->head_done =
		n <= 2 && (p[0] == '\r' || p[0] == '\n'); /* that of a 1xx is followed by another */
	return n;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
	struct http_stream *x = arg;

	(void)one;
	x->last_activity_ms = call_now_ms();
	if (x->events) {
		tell_status(x);
		x->paused = !x->events->on_data(x->arg, p, n);
		return x->paused ? CURL_WRITEFUNC_PAUSE : n;
	}
	if (n > x->max_reply || x->reply->body.size > x->max_reply - n) {
		x->too_big = true;
		return 0;
	}
	buf_add(&x->reply->body, p, n);
	return x->reply->body.failed ? 0 : n;
}

static size_t on_send(char *p, size_t one, size_t n, void *arg)
{
	struct http_stream *x = arg;
	ssize_t got = x->events->on_pull(x->arg, p, one * n);

	x->paused = got == -EAGAIN;
	if (x->paused)
		return CURL_READFUNC_PAUSE;
	return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static int on_progress(
	void *arg, curl_off_t dltotal, curl_off_t dl, curl_off_t ultotal, curl_off_t ul)
{
	struct http_stream *x = arg;

	(void)dltotal;
	(void)ultotal;
	if (dl + ul != x->moved) {
		x->moved = dl + ul;
		x->last_activity_ms = call_now_ms();
	}
	return 0;
}

/* --- the loop thread --- */

static struct curl_slist *make_headers(const struct http_stream *x, bool *failed)
{
	struct curl_slist *list = NULL, *more;
	AUTO_BUF line = BUF_INIT;

	/* Without it curl waits a second for a 100-continue that Workers never send. */
	list = curl_slist_append(NULL, "Expect:");
	*failed = !list;
	if (x->type) {
		buf_printf(&line, "Content-Type: %s", x->type);
		more = curl_slist_append(list, line.data ? line.data : "");
		*failed |= !more;
		list = more ? more : list;
	}
	if (x->target->token) {
		buf_clear(&line);
		buf_printf(&line, "Authorization: Bearer %s", x->target->token);
		more = curl_slist_append(list, line.data ? line.data : "");
		*failed |= !more;
		list = more ? more : list;
	}
	*failed |= line.failed;
	return list;
}

static int set_up(struct http_stream *x)
{
	CURL *e = x->easy;
	bool failed;

	x->headers = make_headers(x, &failed);
	if (failed)
		return -ENOMEM;
	failed = curl_easy_setopt(e, CURLOPT_URL, x->url) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK;
	if (x->target->unix_path)
		failed |= curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, x->target->unix_path) != CURLE_OK;
	if (http_target_is_here(x->target))
		failed |= curl_easy_setopt(e, CURLOPT_PROXY, "") != CURLE_OK;
	if (x->events && x->events->on_pull) {
		/* What was sent cannot be sent again over another connection, so none is used that may be closed by now. */
		failed |= curl_easy_setopt(e, CURLOPT_UPLOAD, 1L) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_READDATA, x) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK;
	} else if (x->size || strcmp(x->method, "POST") == 0) {
		failed |= curl_easy_setopt(e, CURLOPT_POST, 1L) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->size) != CURLE_OK;
		failed |= curl_easy_setopt(e, CURLOPT_POSTFIELDS, x->size ? x->body : "") != CURLE_OK;
	} else {
		failed |= curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method) != CURLE_OK;
	}
	failed |= curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->headers) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_HEADERDATA, x) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_WRITEDATA, x) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_XFERINFODATA, x) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_PRIVATE, x) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->error) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L << 10) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10) != CURLE_OK;
	return failed ? -ENOMEM : 0;
}

static void forget_handle(struct http *h, struct http_stream *x)
{
	if (!x->easy)
		return;
	curl_multi_remove_handle(h->multi, x->easy);
	if (x->call)
		h->exchanges--;
	if (h->spares < SPARE_HANDLES) {
		curl_easy_reset(x->easy);
		h->spare[h->spares++] = x->easy;
	} else {
		curl_easy_cleanup(x->easy);
	}
	x->easy = NULL;
}

/* Called with the lock held: an order that comes too late must not outlive its transfer. */
static void drop_orders(struct http *h, struct http_stream *x)
{
	struct http_stream **at = &h->orders;

	x->finished = true;
	if (!x->queued)
		return;
	while (*at != x)
		at = &(*at)->next_order;
	*at = x->next_order;
	if (h->orders_tail == &x->next_order)
		h->orders_tail = at;
	x->queued = false;
}

/* The transfer is over: tell whom it belongs to. After this it may be gone. */
static void finish(struct http *h, struct http_stream *x, int result)
{
	long status = 0;
	curl_off_t up = 0, down = 0, wait = 0;

	if (x->easy) {
		curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &wait);
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(x->easy, CURLINFO_SIZE_UPLOAD_T, &up);
		curl_easy_getinfo(x->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
		if (x->events && !result)
			tell_status(x);
		if (result && result != -EINTR)
			log_debug("http: %s: %s", x->method, x->error[0] ? x->error : strerror(-result));
	}
	forget_handle(h, x);
	curl_slist_free_all(x->headers);
	x->headers = NULL;
	if (x->prev)
		x->prev->next = x->next;
	else
		h->active = x->next;
	if (x->next)
		x->next->prev = x->prev;

	if (x->running)
		atomic_fetch_sub(x->running, 1);
	x->running = NULL;
	if (x->events) {
		x->events->on_end(x->arg, result);
		pthread_mutex_lock(&h->lock);
		h->sent += (uint64_t)up;
		h->received += (uint64_t)down;
		drop_orders(h, x);
		x->done = true;
		pthread_cond_broadcast(&h->changed);
		pthread_mutex_unlock(&h->lock);
		return;
	}
	x->reply->status = (int)status;
	x->reply->retry_after_ms = wait < 3600 ? (int64_t)wait * 1000 : 3600000;
	pthread_mutex_lock(&h->lock);
	h->sent += (uint64_t)up;
	h->received += (uint64_t)down;
	drop_orders(h, x);
	pthread_mutex_unlock(&h->lock);
	/* The waiter looks at done under its call's lock, and frees x once it has seen it. */
	struct call *c = x->call;
	pthread_mutex_lock(&c->lock);
	x->result = result;
	x->done = true;
	pthread_cond_broadcast(&c->wake);
	pthread_mutex_unlock(&c->lock);
}

/* Gives a waiting transfer a handle, if it may run now. */
static void try_start(struct http *h, struct http_stream *x)
{
	int err = 0;

	if (x->call && h->exchanges >= MAX_EXCHANGES)
		return;
	x->easy = h->spares ? h->spare[--h->spares] : curl_easy_init();
	if (!x->easy) {
		finish(h, x, -ENOMEM);
		return;
	}
	if (x->call)
		h->exchanges++;
	x->began_ms = x->last_activity_ms = call_now_ms();
	err = set_up(x);
	if (!err && curl_multi_add_handle(h->multi, x->easy) != CURLM_OK)
		err = -ENOMEM;
	if (err)
		finish(h, x, err);
}

static void start_waiting(struct http *h)
{
	struct http_stream *x, *next;

	/* The list has the newest first: the oldest waiting one is the last. */
	for (x = h->active; x && x->next; x = x->next)
		;
	for (; x && h->exchanges < MAX_EXCHANGES; x = next) {
		next = x->prev;
		if (!x->easy)
			try_start(h, x);
	}
}

static void obey(struct http *h, struct http_stream *x, unsigned orders)
{
	if (orders & ORDER_START) {
		x->next = h->active;
		x->prev = NULL;
		if (h->active)
			h->active->prev = x;
		h->active = x;
	}
	if (orders & ORDER_CANCEL) {
		finish(h, x, -EINTR);
		return;
	}
	if ((orders & ORDER_RESUME) && x->easy) {
		x->paused = false;
		x->last_activity_ms = call_now_ms();
		curl_easy_pause(x->easy, CURLPAUSE_CONT);
	}
	if (orders & ORDER_START)
		try_start(h, x);
}

static bool take_orders(struct http *h)
{
	bool stop;

	for (;;) {
		pthread_mutex_lock(&h->lock);
		struct http_stream *x = h->orders;
		unsigned orders = 0;

		stop = h->stop;
		if (x) {
			h->orders = x->next_order;
			if (!h->orders)
				h->orders_tail = &h->orders;
			x->queued = false;
			orders = x->orders;
			x->orders = 0;
			if (orders & ORDER_START)
				h->requests++;
		}
		pthread_mutex_unlock(&h->lock);
		if (!x)
			return !stop;
		obey(h, x, orders);
	}
}

static void take_results(struct http *h)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(h->multi, &left))) {
		struct http_stream *x = NULL;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
		finish(h, x, error_of(x, code));
	}
}

/*
 * No byte for timeout_ms. An exchange has a limit in all as well, which grows with what has been moved at 4 KiB a second: a
 * server that sends a byte now and then is none that answers.
 */
static bool is_silent(const struct http_stream *x, int64_t now)
{
	if (!x->easy || x->timeout_ms < 0 || x->paused)
		return false; /* one that waits its turn is not silent yet */
	return now - x->last_activity_ms > x->timeout_ms ||
		   (x->call && now - x->began_ms > x->timeout_ms + (int64_t)x->moved / SLOWEST_PER_MS);
}

static void end_silent(struct http *h)
{
	int64_t now = call_now_ms();
	struct http_stream *x, *next;

	for (x = h->active; x; x = next) {
		next = x->next;
		if (is_silent(x, now))
			finish(h, x, -ETIMEDOUT);
	}
}

static void end_aborted(struct http *h)
{
	const struct http_target *target;
	struct http_stream *x, *next;
	uint64_t last;
	int err;

	pthread_mutex_lock(&h->lock);
	target = h->abort;
	err = h->abort_err;
	last = h->abort_last;
	h->abort = NULL;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
	for (x = target ? h->active : NULL; x; x = next) {
		next = x->next;
		if (x->call && x->target == target && x->number <= last)
			finish(h, x, err);
	}
}

void *http_loop(void *arg)
{
	struct http *h = arg;
	int64_t looked = call_now_ms();
	int running;

	while (take_orders(h)) {
		end_aborted(h);
		curl_multi_perform(h->multi, &running);
		take_results(h);
		if (h->exchanges < MAX_EXCHANGES)
			start_waiting(h);
		if (call_now_ms() - looked >= TICK_MS) {
			looked = call_now_ms();
			end_silent(h);
		}
		curl_multi_poll(h->multi, NULL, 0, TICK_MS, NULL);
	}
	while (h->active)
		finish(h, h->active, -ECANCELED);
	return NULL;
}
