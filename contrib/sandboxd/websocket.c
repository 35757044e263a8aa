/* WebSockets; see websocket.h. */
#include "websocket.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <nettle/base64.h>
#include <nettle/sha1.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <wslay/wslay.h>

#include "cleanup.h"
#include "text.h"

enum {
	PING_MS = 50000,     /* of silence, then we ask whether somebody is there */
	SILENCE_MS = 160000, /* without any answer: nobody is */
	CLOSE_MS = 5000,     /* for the peer to say goodbye */
	OTHERS_MAX = 4,
	KEY_SIZE = 24 /* 16 bytes as base64 */
};

struct websocket {
	struct server *server;
	struct websocket_handler handler;
	void *arg;
	int fd;
	wslay_event_context_ptr frames;
	const char *early; /* what came with the request */
	size_t early_size;
	bool paused, broken;
	int64_t heard, asked;
	int64_t closing; /* since when; 0: not */
	enum websocket_code code;
	const char *reason;
	bool said_goodbye;
};

/* --- libwslay's callbacks --- */

static ssize_t on_recv(wslay_event_context_ptr frames, uint8_t *to, size_t n, int flags, void *arg)
{
	(void)flags;
	struct websocket *w = arg;
	if (w->early_size) {
		size_t part = n < w->early_size ? n : w->early_size;
		memcpy(to, w->early, part);
		w->early += part;
		w->early_size -= part;
		return (ssize_t)part;
	}
	ssize_t got = w->paused ? -1 : recv(w->fd, to, n, 0);
	if (got > 0) {
		w->heard = text_monotonic_ms();
		return got;
	}
	bool later = w->paused || (got < 0 && (errno == EAGAIN || errno == EINTR));
	wslay_event_set_error(frames, later ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t on_send(
	wslay_event_context_ptr frames, const uint8_t *from, size_t n, int flags, void *arg)
{
	struct websocket *w = arg;
	ssize_t sent = send(w->fd, from, n, MSG_NOSIGNAL | (flags & WSLAY_MSG_MORE ? MSG_MORE : 0));
	if (sent < 0)
		wslay_event_set_error(frames,
			errno == EAGAIN || errno == EINTR ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return sent;
}

static void on_message(
	wslay_event_context_ptr frames, const struct wslay_event_on_msg_recv_arg *m, void *arg)
{
	(void)frames;
	struct websocket *w = arg;
	/* wslay itself answers pings and closings. */
	if (m->opcode == WSLAY_TEXT_FRAME || m->opcode == WSLAY_BINARY_FRAME)
		w->handler.message(w, w->arg, m->opcode == WSLAY_BINARY_FRAME, m->msg, m->msg_length);
}

/* --- for the handler --- */

int websocket_send(struct websocket *w, bool binary, const void *p, size_t n)
{
	struct wslay_event_msg m = {
		.opcode = binary ? WSLAY_BINARY_FRAME : WSLAY_TEXT_FRAME, .msg = p, .msg_length = n};
	/* Refused after a closing: there is nobody to send it to then. */
	return wslay_event_queue_msg(w->frames, &m) == WSLAY_ERR_NOMEM ? -ENOMEM : 0;
}

int websocket_send_json(struct websocket *w, struct json_object *o)
{
	size_t n = 0;
	const char *text = o ? json_object_to_json_string_length(
							   o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n)
						 : NULL;
	int err = text ? websocket_send(w, false, text, n) : -ENOMEM;
	json_object_put(o);
	return err;
}

size_t websocket_pending(struct websocket *w)
{
	return wslay_event_get_queued_msg_length(w->frames);
}

void websocket_pause(struct websocket *w, bool paused)
{
	w->paused = paused;
}

void websocket_close(struct websocket *w, enum websocket_code code, const char *reason)
{
	if (w->closing)
		return;
	w->closing = text_monotonic_ms();
	w->code = code;
	w->reason = reason;
	w->paused = false;
}

/* wslay sends a closing before what is queued, and nothing behind it: so it is queued last. */
static void say_goodbye(struct websocket *w)
{
	if (!w->closing || w->said_goodbye || wslay_event_get_queued_msg_count(w->frames))
		return;
	w->said_goodbye = true;
	if (wslay_event_queue_close(
			w->frames, (uint16_t)w->code, (const uint8_t *)w->reason, strlen(w->reason)) != 0)
		w->broken = true;
}

static bool is_over(struct websocket *w)
{
	int64_t now = text_monotonic_ms();
	if (w->broken || (w->closing && now - w->closing > CLOSE_MS) || now - w->heard > SILENCE_MS)
		return true;
	if (wslay_event_get_close_received(w->frames) && !wslay_event_want_write(w->frames))
		return true;
	return !wslay_event_want_read(w->frames) && !wslay_event_want_write(w->frames);
}

static void ask(struct websocket *w)
{
	int64_t now = text_monotonic_ms();
	if (now - w->heard < PING_MS || now - w->asked < PING_MS)
		return;
	struct wslay_event_msg ping = {.opcode = WSLAY_PING, .msg = NULL, .msg_length = 0};
	w->asked = now;
	if (wslay_event_queue_msg(w->frames, &ping) == WSLAY_ERR_NOMEM)
		w->broken = true;
}

bool websocket_step(struct websocket *w, struct pollfd *others, size_t count, int ms)
{
	if (is_over(w))
		return false;
	ask(w);
	say_goodbye(w);
	struct pollfd fds[2 + OTHERS_MAX] = {
		{.fd = w->fd}, {.fd = w->closing ? -1 : w->server->stop_fd, .events = POLLIN}};
	if (wslay_event_want_read(w->frames) && !w->paused)
		fds[0].events |= POLLIN;
	if (wslay_event_want_write(w->frames))
		fds[0].events |= POLLOUT;
	for (size_t i = 0; i < count && i < OTHERS_MAX; i++)
		fds[2 + i] = others[i];
	if (w->early_size && !w->paused)
		ms = 0;
	if (poll(fds, 2 + count, ms) < 0 && errno != EINTR)
		return false;
	for (size_t i = 0; i < count && i < OTHERS_MAX; i++)
		others[i].revents = fds[2 + i].revents;
	if (fds[1].revents)
		websocket_close(w, WEBSOCKET_GOING_AWAY, "the server is stopping");
	if ((fds[0].revents & (POLLERR | POLLHUP | POLLNVAL)) && !(fds[0].revents & POLLIN))
		return false;
	if (wslay_event_want_read(w->frames) && wslay_event_recv(w->frames) != 0)
		return false;
	if (wslay_event_want_write(w->frames) && wslay_event_send(w->frames) != 0)
		return false;
	return !is_over(w);
}

/* --- opening --- */

static void on_upgrade(void *arg, struct MHD_Connection *connection, void *state, const char *extra,
	size_t extra_size, MHD_socket client, struct MHD_UpgradeResponseHandle *handle)
{
	(void)connection;
	(void)state;
	struct websocket *w = arg;
	struct wslay_event_callbacks callbacks = {
		.recv_callback = on_recv, .send_callback = on_send, .on_msg_recv_callback = on_message};
	int flags = fcntl(client, F_GETFL);
	w->fd = client;
	w->early = extra;
	w->early_size = extra_size;
	w->heard = w->asked = text_monotonic_ms();
	if (flags >= 0 && fcntl(client, F_SETFL, flags | O_NONBLOCK) == 0 &&
		wslay_event_context_server_init(&w->frames, &callbacks, w) == 0) {
		wslay_event_config_set_max_recv_msg_length(w->frames, WEBSOCKET_MESSAGE_MAX);
		w->handler.run(w, w->arg);
		wslay_event_context_free(w->frames);
	}
	w->handler.release(w->arg);
	free(w);
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static const char *header(struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

bool websocket_is_wanted(struct request *r)
{
	const char *upgrade = header(r, MHD_HTTP_HEADER_UPGRADE);
	const char *key = header(r, "Sec-WebSocket-Key");
	const char *version = header(r, "Sec-WebSocket-Version");
	return upgrade && strcasecmp(upgrade, "websocket") == 0 && key && strlen(key) == KEY_SIZE &&
		   version && strcmp(version, "13") == 0;
}

/* What proves that the key was read by a server of WebSockets (RFC 6455, 1.3). */
static void accept_make(const char *key, char out[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE) + 1])
{
	static const char salt[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	struct sha1_ctx sha;
	uint8_t digest[SHA1_DIGEST_SIZE];
	sha1_init(&sha);
	sha1_update(&sha, strlen(key), (const uint8_t *)key);
	sha1_update(&sha, strlen(salt), (const uint8_t *)salt);
	sha1_digest(&sha, sizeof digest, digest);
	base64_encode_raw(out, sizeof digest, digest);
	out[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE)] = '\0';
}

enum MHD_Result reply_websocket(
	struct request *r, const struct websocket_handler *handler, void *arg)
{
	char accept[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE) + 1];
	accept_make(header(r, "Sec-WebSocket-Key"), accept);
	const char *const headers[] = {"Sec-WebSocket-Accept", accept, NULL};
	struct websocket *w = calloc(1, sizeof *w);
	if (!w) {
		handler->release(arg);
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	}
	w->server = r->server;
	w->handler = *handler;
	w->arg = arg;
	enum MHD_Result result = reply_upgrade(r, "websocket", headers, on_upgrade, w);
	if (result != MHD_YES) {
		handler->release(arg);
		free(w);
	}
	return result;
}
