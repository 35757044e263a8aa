/*
 * Wires: see wire.h. Everything that comes is from a server that is not trusted: it is bounded and checked.
 */
#include "wire.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <wslay/wslay.h>

#include "buf.h"
#include "cleanup.h"
#include "shown.h"
#include "websocket_handshake.h"

enum {
	LOOK_MS = 100,       /* how often a wait looks whether it is cancelled */
	CONNECT_MS = 30000,  /* TCP and TLS */
	IN_MOST = 1 << 20,   /* what is received and not yet taken */
	TURN_MOST = 4 << 20, /* what is received in one go, of whatever kind */
	MESSAGE = 16 << 10,  /* of what goes out */
	/* Messages that wait: answers to pings and, unlike those of websocket_frames.c, our own, one at most, which cannot fill it. */
	PONGS_MOST = 256,
	SAID_MOST = 4096 /* of what the server says in text */
};

struct wire {
	CURL *easy;
	curl_socket_t fd;
	struct wslay_event_context *frames;
	struct call *call; /* while it connects */
	struct buf early;  /* received with the answer's head: of the frames, from early_at on */
	size_t early_at;
	struct buf in; /* the messages' bytes, not yet taken from in_at on */
	size_t in_at;
	struct buf said; /* the text messages: JSON for people, mostly why not */
	size_t turn;     /* received since frames_move began */
	bool text, control, over;
};

/* --- bytes --- */

/* 0 and *n > 0, -EAGAIN, -EPIPE, -EIO. */
static int wire_recv(struct wire *w, void *p, size_t size, size_t *n)
{
	CURLcode err = curl_easy_recv(w->easy, p, size, n);
	if (err == CURLE_AGAIN)
		return -EAGAIN;
	if (err != CURLE_OK)
		return -EIO;
	return *n ? 0 : -EPIPE;
}

static int wire_send(struct wire *w, const void *p, size_t size, size_t *n)
{
	CURLcode err = curl_easy_send(w->easy, p, size, n);
	return err == CURLE_AGAIN ? -EAGAIN : err == CURLE_OK ? 0 : -EIO;
}

/* Waits for the socket; 0 when something may be done, -ETIMEDOUT, -EINTR. */
static int wire_wait(struct wire *w, struct call *c, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd p = {w->fd, events, 0};
		if (call_cancelled(c))
			return -EINTR;
		int64_t left = deadline - call_now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		int n = poll(&p, 1, left < LOOK_MS ? (int)left : LOOK_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/* --- frames --- */

/* So many answers to pings wait that nothing more is read. */
static bool frames_full(const struct wire *w)
{
	return wslay_event_get_queued_msg_count(w->frames) >= PONGS_MOST;
}

static ssize_t on_recv(
	wslay_event_context_ptr frames, uint8_t *p, size_t size, int flags, void *arg)
{
	struct wire *w = arg;
	size_t n = 0;
	(void)flags;
	/* Whoever takes has not kept up, or the server pings faster than it reads or talks without end: the rest waits in its buffers. */
	bool full = w->turn >= TURN_MOST || w->in.size - w->in_at >= IN_MOST || frames_full(w);
	if (!full && w->early_at < w->early.size) {
		n = w->early.size - w->early_at < size ? w->early.size - w->early_at : size;
		memcpy(p, w->early.data + w->early_at, n);
		w->early_at += n;
		w->turn += n;
		return (ssize_t)n;
	}
	int err = full ? -EAGAIN : wire_recv(w, p, size, &n);
	if (!err) {
		w->turn += n;
		return (ssize_t)n;
	}
	w->over = w->over || err != -EAGAIN;
	wslay_event_set_error(
		frames, err == -EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t on_send(
	wslay_event_context_ptr frames, const uint8_t *p, size_t size, int flags, void *arg)
{
	struct wire *w = arg;
	size_t n = 0;
	(void)flags;
	int err = wire_send(w, p, size, &n);
	if (!err)
		return (ssize_t)n;
	w->over = w->over || err != -EAGAIN;
	wslay_event_set_error(
		frames, err == -EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static int on_genmask(wslay_event_context_ptr frames, uint8_t *p, size_t n, void *arg)
{
	(void)arg;
	if (getrandom(p, n, 0) == (ssize_t)n)
		return 0;
	wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static void on_frame(wslay_event_context_ptr frames,
	const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
	struct wire *w = arg;
	(void)frames;
	w->control = wslay_is_ctrl_frame(frame->opcode);
	if (!w->control && frame->opcode != WSLAY_CONTINUATION_FRAME)
		w->text = frame->opcode == WSLAY_TEXT_FRAME;
}

static void on_chunk(wslay_event_context_ptr frames,
	const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
	struct wire *w = arg;
	(void)frames;
	if (w->control)
		return;
	if (!w->text)
		buf_add(&w->in, chunk->data, chunk->data_length);
	else if (w->said.size + chunk->data_length <= SAID_MOST)
		buf_add(&w->said, chunk->data, chunk->data_length);
}

static int frames_begin(struct wire *w)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = on_recv,
		.send_callback = on_send,
		.genmask_callback = on_genmask,
		.on_frame_recv_start_callback = on_frame,
		.on_frame_recv_chunk_callback = on_chunk,
	};
	if (wslay_event_context_client_init(&w->frames, &callbacks, w) != 0)
		return -ENOMEM;
	wslay_event_config_set_no_buffering(w->frames, 1);
	wslay_event_config_set_max_recv_msg_length(w->frames, INT64_MAX);
	return 0;
}

/* Sends and receives what can be; false: it has ended. What can go goes first: it may make room to read what poll does not see. */
static bool frames_move(struct wire *w)
{
	w->turn = 0;
	if (w->over || wslay_event_send(w->frames) != 0 || wslay_event_recv(w->frames) != 0 ||
		buf_error(&w->in))
		w->over = true;
	if (!wslay_event_want_read(w->frames))
		w->over = true; /* a close has come */
	return !w->over;
}

/* --- for mux_run --- */

static int carrier_fd(void *arg)
{
	struct wire *w = arg;
	return w->fd;
}

static short carrier_events(void *arg, int wants_write)
{
	struct wire *w = arg;
	/* Told of what it does not read, poll would never wait. */
	return (frames_full(w) ? 0 : POLLIN) |
		   (wants_write || wslay_event_want_write(w->frames) ? POLLOUT : 0);
}

static int carrier_read(void *arg, void *p, size_t size, size_t *n)
{
	struct wire *w = arg;
	bool open = true;
	if (w->in_at == w->in.size)
		open = frames_move(w);
	size_t left = w->in.size - w->in_at;
	if (!left)
		return open ? -EAGAIN : -EPIPE;
	*n = left < size ? left : size;
	memcpy(p, w->in.data + w->in_at, *n);
	w->in_at += *n;
	if (w->in_at == w->in.size) {
		buf_clear(&w->in);
		w->in_at = 0;
	}
	return 0;
}

static int carrier_write(void *arg, const void *p, size_t size, size_t *n)
{
	struct wire *w = arg;
	*n = 0;
	for (;;) {
		if (w->over || wslay_event_send(w->frames) != 0)
			return -EPIPE;
		if (*n == size)
			return 0;
		/* One message at a time, so that what waits is the caller's and bounded there. */
		if (wslay_event_want_write(w->frames))
			return *n ? 0 : -EAGAIN;
		size_t part = size - *n < MESSAGE ? size - *n : MESSAGE;
		struct wslay_event_msg message = {WSLAY_BINARY_FRAME, (const uint8_t *)p + *n, part};
		if (wslay_event_queue_msg(w->frames, &message) != 0)
			return -EPIPE;
		*n += part; /* wslay has a copy */
	}
}

struct mux_carrier wire_carrier(struct wire *w)
{
	return (struct mux_carrier){carrier_fd, carrier_events, carrier_read, carrier_write, w};
}

/* --- what comes before --- */

/* What the server said, for a sentence, behind `before`; nothing if it said nothing: new. */
static char *wire_words(const char *before, const char *p, size_t n)
{
	AUTO_BUF words = BUF_INIT;
	if (n) {
		buf_str(&words, before);
		shown_words(&words, p, n, SHOWN_MOST);
	}
	return buf_steal(&words);
}

/* The line behind bad, if it has come whole: new. */
static char *wire_refusal(const struct wire *w, const char *bad)
{
	const char *why = w->in.size ? memmem(w->in.data, w->in.size, bad, strlen(bad)) : NULL;
	const char *end = why ? memchr(why, '\n', w->in.size - (size_t)(why - w->in.data)) : NULL;
	if (!end)
		return NULL;
	why += strlen(bad);
	return wire_words("", why, (size_t)(end - why));
}

int wire_await(struct wire *w, struct call *c, const char *mark, const char *bad, size_t most,
	int64_t deadline)
{
	size_t n = strlen(mark);
	for (;;) {
		bool open = frames_move(w);
		const char *at = w->in.size ? memmem(w->in.data, w->in.size, mark, n) : NULL;
		if (at) {
			w->in_at = (size_t)(at - w->in.data) + n;
			return 0;
		}
		AUTO_FREE char *why = wire_refusal(w, bad);
		if (why)
			return call_fault(c, EIO, NULL, "in the sandbox: %s", why);
		if (!open) {
			AUTO_FREE char *said = wire_words(": ", w->said.data, w->said.size);
			return call_fault(c, EPIPE, NULL, "the server ended the terminal%s", said ? said : "");
		}
		if (w->in.size > most)
			return call_fault(
				c, EPROTO, NULL, "the server's terminal does not run what it was asked to");
		int err =
			wire_wait(w, c, POLLIN | (wslay_event_want_write(w->frames) ? POLLOUT : 0), deadline);
		if (err)
			return err;
	}
}

/* --- opening --- */

static int on_progress(
	void *arg, curl_off_t dltotal, curl_off_t dl, curl_off_t ultotal, curl_off_t ul)
{
	struct wire *w = arg;
	(void)dltotal;
	(void)dl;
	(void)ultotal;
	(void)ul;
	return call_cancelled(w->call); /* not 0: give up */
}

static int connect_failed(struct wire *w, const struct http_target *target, CURLcode err)
{
	switch (err) {
	case CURLE_ABORTED_BY_CALLBACK:
		return -EINTR;
	case CURLE_OPERATION_TIMEDOUT:
		return call_fault(w->call, ETIMEDOUT, NULL, "%s: no connection in time", target->base);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return call_fault(
			w->call, EHOSTUNREACH, NULL, "%s: %s", target->base, curl_easy_strerror(err));
	case CURLE_SSL_CONNECT_ERROR: /* a handshake that broke off; a certificate has codes of its own */
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
		return call_fault(
			w->call, ECONNRESET, NULL, "%s: %s", target->base, curl_easy_strerror(err));
	default: /* a certificate above all */
		return call_fault(w->call, EPROTO, NULL, "%s: %s", target->base, curl_easy_strerror(err));
	}
}

static int wire_connect(struct wire *w, const struct http_target *target)
{
	CURL *e = w->easy = curl_easy_init();
	if (!e)
		return -ENOMEM;
	bool failed = curl_easy_setopt(e, CURLOPT_URL, target->base) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_CONNECT_ONLY, 1L) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS) != CURLE_OK;
	/* Over HTTP/2 there is no such handshake. */
	failed |= curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress) != CURLE_OK;
	failed |= curl_easy_setopt(e, CURLOPT_XFERINFODATA, w) != CURLE_OK;
	if (target->unix_path)
		failed |= curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, target->unix_path) != CURLE_OK;
	if (http_target_is_here(target))
		failed |= curl_easy_setopt(e, CURLOPT_PROXY, "") != CURLE_OK;
	if (failed)
		return -ENOMEM;
	CURLcode err = curl_easy_perform(e);
	if (err == CURLE_OK)
		err = curl_easy_getinfo(e, CURLINFO_ACTIVESOCKET, &w->fd);
	return err == CURLE_OK ? 0 : connect_failed(w, target, err);
}

/* One link of the way broke; another try may find it whole. */
static int broke_off(struct wire *w)
{
	return call_fault(
		w->call, EAGAIN, NULL, "the server broke the connection off before it answered");
}

static int send_request(struct wire *w, const struct buf *request, int64_t deadline)
{
	for (size_t done = 0; done < request->size;) {
		size_t n = 0;
		int err = wire_send(w, request->data + done, request->size - done, &n);
		if (err == -EAGAIN)
			err = wire_wait(w, w->call, POLLOUT, deadline);
		else if (err)
			err = broke_off(w);
		if (err)
			return err;
		done += n;
	}
	return 0;
}

/* What an answer means that is not the one that was hoped for. The words behind the head are whatever has come of them. */
static int refused(struct wire *w, const char *url, size_t head)
{
	int status = websocket_head_status(w->early.data, head);
	AUTO_FREE char *words = wire_words(": ", w->early.data + head, w->early.size - head);
	const char *said = words ? words : "";
	switch (status) {
	case 401:
	case 403:
		return call_fault(w->call, EACCES, "unauthorized",
			"%s: the server refuses the token (%d)%s", url, status, said);
	case 404:
		return call_fault(
			w->call, ENOTSUP, NULL, "%s: the server has no terminal there (404)%s", url, said);
	case 429:
	case 502:
	case 503:
	case 504:
		return call_fault(w->call, EAGAIN, NULL, "%s: not now (%d)%s", url, status, said);
	default:
		return call_fault(
			w->call, EPROTO, NULL, "%s: the server answers %d to a WebSocket%s", url, status, said);
	}
}

static int read_head(struct wire *w, int64_t deadline, size_t *head)
{
	for (;;) {
		char piece[4096];
		size_t n = 0;
		if (call_now_ms() >= deadline)
			return -ETIMEDOUT;
		ssize_t size = websocket_head_size(w->early.data ? w->early.data : "", w->early.size);
		if (size < 0)
			return call_fault(w->call, EPROTO, NULL, "the server does not speak HTTP/1.1");
		*head = (size_t)size;
		if (size)
			return 0;
		int err = wire_recv(w, piece, sizeof piece, &n);
		if (err == -EAGAIN)
			err = wire_wait(w, w->call, POLLIN, deadline);
		else if (err)
			err = broke_off(w);
		if (err)
			return err;
		buf_add(&w->early, piece, n);
		if (buf_error(&w->early))
			return -ENOMEM;
	}
}

static int shake_hands(
	struct wire *w, const struct http_target *target, const char *path, int64_t deadline)
{
	struct websocket_spec spec = {.path = path};
	char key[WEBSOCKET_KEY + 1];
	AUTO_BUF request = BUF_INIT;
	AUTO_FREE char *protocol = NULL;
	AUTO_FREE char *why = NULL;
	size_t head = 0;
	const char *host = strstr(target->base, "://");
	int err = websocket_make_key(key);
	if (!err)
		err = websocket_request(&request, &spec, host ? host + 3 : "localhost", target->token, key);
	if (!err)
		err = send_request(w, &request, deadline);
	if (request.data)
		explicit_bzero(request.data, request.size); /* the token */
	if (!err)
		err = read_head(w, deadline, &head);
	if (err)
		return err;
	if (websocket_head_status(w->early.data, head) != 101)
		return refused(w, target->base, head);
	err = websocket_answer(w->early.data, head, key, NULL, &protocol, &why);
	if (err)
		return call_fault(w->call, EPROTO, NULL, "%s: %s", target->base, why ? why : "");
	return (int)head;
}

int wire_open(struct call *c, const struct http_target *target, const char *path, int64_t deadline,
	struct wire **out)
{
	struct wire *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	w->fd = CURL_SOCKET_BAD;
	w->call = c;
	int err = wire_connect(w, target);
	int head = err ? err : shake_hands(w, target, path, deadline);
	if (head < 0) {
		wire_close(w);
		return head;
	}
	w->early_at = (size_t)head;
	err = frames_begin(w);
	if (err) {
		wire_close(w);
		return err;
	}
	*out = w;
	return 0;
}

void wire_close(struct wire *w)
{
	if (!w)
		return;
	if (w->frames)
		wslay_event_context_free(w->frames);
	if (w->easy)
		curl_easy_cleanup(w->easy);
	buf_release(&w->early);
	buf_release(&w->in);
	buf_release(&w->said);
	free(w);
}
