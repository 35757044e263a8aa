/*
 * WebSockets: frames, by libwslay. What comes in is handed on piece by piece, what goes out is wslay's queue. See websocket_impl.h.
 *
 * wslay sends a close before messages that wait, so it is told of ours only when none waits any more.
 *
 * It answers every ping with a pong, which it keeps until it can be sent. A service that pings and does not read would have it keep
 * them without end, so nothing is read while PONGS_MAX wait. Only pongs count: if messages of our own did, a service that waits
 * with reading until its echoes are taken, and this side, would wait for each other. Pongs put off no close either, which wslay sends
 * behind those that it has; from then on it makes none.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <wslay/wslay.h>

#include "websocket_impl.h"

enum {
	WEBSOCKET_TURNS = 64, /* reads in a row from one socket before others have their turn */
	PONGS_MAX = 64        /* and as many more as one read of wslay's, of 4096 bytes, may hold */
};

bool websocket_frames_full(const struct websocket *w)
{
	return w->pongs >= PONGS_MAX;
}

size_t websocket_frames_queued(const struct websocket *w)
{
	size_t count = wslay_event_get_queued_msg_count(w->frames);

	return count > w->pongs ? count - w->pongs : 0;
}

static ssize_t on_recv(
	wslay_event_context_ptr frames, uint8_t *p, size_t size, int flags, void *arg)
{
	struct websocket *w = arg;
	size_t left = w->in.size - w->in_at;

	(void)flags;
	w->paused = !w->left && w->ev.room && !w->ev.room(w->arg);
	w->full = websocket_frames_full(w);
	if (w->paused || w->full || w->turns <= 0) {
		wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	w->turns--;
	if (left) {
		size_t n = left < size ? left : size;
		memcpy(p, w->in.data + w->in_at, n);
		w->in_at += n;
		if (w->in_at == w->in.size)
			buf_release(&w->in), w->in_at = 0;
		return (ssize_t)n;
	}
	ssize_t n = recv(w->fd, p, size, 0);
	if (n > 0)
		return n;
	bool wait = n < 0 && (errno == EAGAIN || errno == EINTR);
	wslay_event_set_error(frames, wait ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t on_send(
	wslay_event_context_ptr frames, const uint8_t *p, size_t n, int flags, void *arg)
{
	struct websocket *w = arg;
	ssize_t sent = send(w->fd, p, n, MSG_NOSIGNAL | (flags & WSLAY_MSG_MORE ? MSG_MORE : 0));

	if (sent > 0 && w->frame_begins) {
		w->frame_begins = false;
		w->pong_begun = (*p & 0x0f) == WSLAY_PONG;
	}
	if (sent >= 0)
		return sent;
	bool wait = errno == EAGAIN || errno == EINTR;
	wslay_event_set_error(frames, wait ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

/* A pong is whole when the next frame begins, or nothing waits any more. */
static void pong_sent(struct websocket *w)
{
	if (w->pong_begun && w->pongs)
		w->pongs--;
	w->pong_begun = false;
}

/* A mask is asked for once a frame, before its first byte is sent. */
static int on_genmask(wslay_event_context_ptr frames, uint8_t *p, size_t n, void *arg)
{
	struct websocket *w = arg;

	pong_sent(w);
	w->frame_begins = true;
	if (getrandom(p, n, 0) == (ssize_t)n)
		return 0;
	wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static void on_frame(wslay_event_context_ptr frames,
	const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
	struct websocket *w = arg;

	(void)frames;
	w->control = wslay_is_ctrl_frame(frame->opcode);
	if (w->control)
		return;
	w->final = frame->fin;
	if (frame->opcode != WSLAY_CONTINUATION_FRAME)
		w->text = frame->opcode == WSLAY_TEXT_FRAME;
}

static void on_chunk(wslay_event_context_ptr frames,
	const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
	struct websocket *w = arg;

	(void)frames;
	if (!w->control && !w->left && chunk->data_length)
		w->ev.data(w->arg, w->text, chunk->data, chunk->data_length, false);
}

static void on_frame_end(wslay_event_context_ptr frames, void *arg)
{
	struct websocket *w = arg;

	(void)frames;
	if (!w->control && !w->left && w->final)
		w->ev.data(w->arg, w->text, "", 0, true);
}

/* Of messages only their end comes here; of a close or a ping all of it. */
static void on_message(
	wslay_event_context_ptr frames, const struct wslay_event_on_msg_recv_arg *message, void *arg)
{
	struct websocket *w = arg;

	if (message->opcode == WSLAY_PING && !w->close_queued && wslay_event_get_write_enabled(frames))
		w->pongs++;
	if (message->opcode != WSLAY_CONNECTION_CLOSE || message->msg_length <= 2)
		return;
	free(w->why);
	w->why = strndup((const char *)message->msg + 2, message->msg_length - 2);
}

int websocket_frames_begin(struct websocket *w)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = on_recv,
		.send_callback = on_send,
		.genmask_callback = on_genmask,
		.on_frame_recv_start_callback = on_frame,
		.on_frame_recv_chunk_callback = on_chunk,
		.on_frame_recv_end_callback = on_frame_end,
		.on_msg_recv_callback = on_message,
	};

	if (wslay_event_context_client_init(&w->frames, &callbacks, w) != 0)
		return -ENOMEM;
	/* Messages are handed on as they come: they may be longer than memory. */
	wslay_event_config_set_no_buffering(w->frames, 1);
	wslay_event_config_set_max_recv_msg_length(w->frames, INT64_MAX);
	return 0;
}

/* Sends what can be. */
static bool send_all(struct websocket *w)
{
	if (wslay_event_want_write(w->frames) && wslay_event_send(w->frames) != 0)
		return false;
	size_t count = wslay_event_get_queued_msg_count(w->frames);
	if (!count)
		pong_sent(w);
	if (w->pongs > count) /* those of a wslay that sends none any more */
		w->pongs = count;
	return true;
}

/* Sends and receives what can be. False: it is over. */
bool websocket_frames_move(struct websocket *w)
{
	w->turns = WEBSOCKET_TURNS;
	w->full = false;
	for (int i = 0; i < 2; i++) { /* what was received asks for answers: pongs, a close */
		if (w->state == WEBSOCKET_CLOSING && !w->close_queued && websocket_frames_queued(w) == 0) {
			w->close_queued = true;
			if (wslay_event_get_write_enabled(w->frames) &&
				wslay_event_queue_close(w->frames, w->close_code, NULL, 0) != 0)
				return false;
		}
		if (!send_all(w))
			return false;
		if (i == 0 && wslay_event_want_read(w->frames) && wslay_event_recv(w->frames) != 0)
			return false;
	}
	/* What was put off may be in memory, of which no socket tells. */
	if (w->turns <= 0 || (w->full && !websocket_frames_full(w))) {
		w->kicked = true;
		websocket_set_wake(w->set);
	}
	/* wslay stops reading after a close, and after what breaks the protocol: then it says a close by itself. */
	return wslay_event_want_read(w->frames) || wslay_event_want_write(w->frames);
}
