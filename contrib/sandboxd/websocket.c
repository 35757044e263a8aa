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

#include "cleanup.h"
#include "json_make.h"
#include "text.h"
#include "ws_frames.h"

enum {
	PING_MS = 50000,     /* of silence, then we ask whether somebody is there */
	SILENCE_MS = 160000, /* without any answer: nobody is */
	CLOSE_MS = 5000,     /* for the peer to say goodbye */
	OTHERS_MAX = 4,
	KEY_SIZE = 24, /* 16 bytes as base64 */
	PIECE = 16 << 10,
	PIECES = 16 /* read in one step */
};

struct websocket {
	struct server *server;
	struct websocket_handler handler;
	void *arg;
	int fd;
	struct ws_frames frames;
	const char *early; /* what came with the request */
	size_t early_size;
	bool paused, broken;
	int64_t heard, asked;
	int64_t closing; /* since when; 0: not */
};

/* --- bytes both ways --- */

static void on_message(void *arg, bool binary, const void *p, size_t n)
{
	struct websocket *w = arg;
	/* What comes while goodbyes are said is read for the sake of theirs. */
	if (!w->closing)
		w->handler.message(w, w->arg, binary, p, n);
}

/* -EPIPE: nothing more will come. */
static int receive_piece(struct websocket *w)
{
	char piece[PIECE];
	ssize_t got = recv(w->fd, piece, sizeof piece, 0);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
	if (!got)
		return -EPIPE;
	w->heard = text_monotonic_ms();
	return ws_frames_take(&w->frames, piece, (size_t)got);
}

static int receive(struct websocket *w)
{
	int rc = 0;
	if (w->early_size && !w->paused) {
		size_t n = w->early_size;
		w->early_size = 0;
		rc = ws_frames_take(&w->frames, w->early, n);
	}
	/* Who sends without end is not to keep us from sending. */
	for (unsigned i = 0; !rc && i < PIECES && !w->paused && !w->frames.over; i++)
		rc = receive_piece(w);
	return rc == -EAGAIN ? 0 : rc;
}

static int transmit(struct websocket *w)
{
	size_t n;
	const void *p;
	while ((p = ws_frames_out(&w->frames, &n)) && n) {
		ssize_t sent = send(w->fd, p, n, MSG_NOSIGNAL);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		ws_frames_sent(&w->frames, (size_t)sent);
	}
	return 0;
}

/* --- for the handler --- */

int websocket_send(struct websocket *w, bool binary, const void *p, size_t n)
{
	return ws_frames_put(&w->frames, binary ? WS_BINARY : WS_TEXT, p, n);
}

int websocket_send_json(struct websocket *w, struct json_object *o)
{
	size_t n = 0;
	const char *text = json_text_of(o, &n);
	int err = text ? websocket_send(w, false, text, n) : -ENOMEM;
	json_object_put(o);
	return err;
}

size_t websocket_pending(struct websocket *w)
{
	size_t n;
	(void)ws_frames_out(&w->frames, &n);
	return n;
}

void websocket_pause(struct websocket *w, bool paused)
{
	/* The answer to a closing has to be heard. */
	w->paused = paused && !w->closing;
}

void websocket_close(struct websocket *w, enum websocket_code code, const char *reason)
{
	if (w->closing)
		return;
	w->closing = text_monotonic_ms();
	w->paused = false;
	if (ws_frames_close(&w->frames, code, reason) != 0)
		w->broken = true;
}

static bool is_over(struct websocket *w)
{
	int64_t now = text_monotonic_ms();
	if (w->broken || (w->closing && now - w->closing > CLOSE_MS) || now - w->heard > SILENCE_MS)
		return true;
	return w->frames.over && !websocket_pending(w);
}

static void ask(struct websocket *w)
{
	int64_t now = text_monotonic_ms();
	if (now - w->heard < PING_MS || now - w->asked < PING_MS)
		return;
	w->asked = now;
	if (ws_frames_put(&w->frames, WS_PING, "", 0) != 0)
		w->broken = true;
}

bool websocket_step(struct websocket *w, struct pollfd *others, size_t count, int ms)
{
	if (is_over(w))
		return false;
	ask(w);
	struct pollfd fds[2 + OTHERS_MAX] = {
		{.fd = w->fd}, {.fd = w->closing ? -1 : w->server->stop_fd, .events = POLLIN}};
	if (!w->frames.over && !w->paused)
		fds[0].events |= POLLIN;
	if (websocket_pending(w))
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
	if (receive(w) != 0 || transmit(w) != 0)
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
	int flags = fcntl(client, F_GETFL);
	w->fd = client;
	w->early = extra;
	w->early_size = extra_size;
	w->heard = w->asked = text_monotonic_ms();
	ws_frames_init(&w->frames, on_message, w, WEBSOCKET_MESSAGE_MAX);
	if (flags >= 0 && fcntl(client, F_SETFL, flags | O_NONBLOCK) == 0)
		w->handler.run(w, w->arg);
	ws_frames_release(&w->frames);
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
