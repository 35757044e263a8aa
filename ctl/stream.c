/*
 * Channels and streams: reads that wait.
 *
 * A channel is the reading side of one opening: reads are answered in the order they came; a read that finds nothing is
 * parked (no thread stays with it) and answered by the pump after the source's wake, or by its own cancel. Bytes are taken
 * from the source before a parked op is taken back, so a read that is cancelled at that moment loses none: they
 * stay pending for the next. Offsets mean nothing here. No answer is given with the channel's lock held.
 *
 * CTL_STREAM is a channel over a row's stream operations.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { CHUNK = 128 * 1024 };

struct ctl_waiter {
	struct ctl_waiter *next;
	struct ctl_channel *ch;
	struct op *op;
	size_t size;
	pid_t pid;
	bool gone; /* its cancel is under way and will remove it */
};

int ctl_channel_init(struct ctl_channel *ch, struct ctl_pump *pump, int flags)
{
	int err = ctl_pump_start(pump);
	if (err)
		return err;
	*ch = (struct ctl_channel){.pump = pump, .nonblock = (flags & O_NONBLOCK) != 0};
	pthread_mutex_init(&ch->lock, NULL);
	ch->last = &ch->first;
	return 0;
}

/* As channel_fill, of a channel whose reads are answered in full: what has come is gathered until it is as much as is wanted, or all. */
static bool channel_gather(struct ctl_channel *ch, size_t want)
{
	size_t left = ch->pending_size - ch->pending_at;
	if (left >= want || ch->ended)
		return true;
	if (ch->pending_at)
		memmove(ch->pending, ch->pending + ch->pending_at, left);
	ch->pending_at = 0;
	ch->pending_size = left;
	char *pending = realloc(ch->pending, want);
	if (pending)
		ch->pending = pending;
	while (!ch->ended && ch->pending_size < want) {
		ssize_t got =
			pending ? ch->next(ch->source, ch->pending + ch->pending_size, want - ch->pending_size)
					: -ENOMEM;
		if (got == -EAGAIN)
			return false;
		if (got > 0)
			ch->pending_size += (size_t)got;
		ch->ended = got <= 0;
		ch->end_err = got <= 0 ? (int)got : 0;
	}
	return true;
}

/* Something to tell: bytes, the end or an error. With the lock held. */
static bool channel_fill(struct ctl_channel *ch, size_t want)
{
	if (ch->whole && ch->next && want)
		return channel_gather(ch, want);
	if (ch->pending_at < ch->pending_size || ch->ended)
		return true;
	if (!ch->next)
		return false;
	size_t n = want < CHUNK ? want : CHUNK;
	free(ch->pending);
	ch->pending_at = ch->pending_size = 0;
	ch->pending = malloc(n ? n : 1);
	ssize_t got = ch->pending ? ch->next(ch->source, ch->pending, n) : -ENOMEM;
	if (got == -EAGAIN)
		return false;
	if (got > 0) {
		ch->pending_size = (size_t)got;
	} else {
		ch->ended = true;
		ch->end_err = (int)got;
	}
	return true;
}

struct portion {
	char *memory; /* new; freed after the answer */
	const char *data;
	size_t size;
	int err;
};

/* What one read gets. Only after channel_fill said true. With the lock held. */
static struct portion channel_take(struct ctl_channel *ch, size_t size, pid_t reader)
{
	struct portion out = {0};
	size_t left = ch->pending_size - ch->pending_at;
	if (!left) {
		out.err = ch->end_err;
		ch->ended = false;
		ch->cut_line = !out.err && (!ch->told_any || ch->told_last != '\n');
		ch->end_reader = ch->cut_line ? ctl_process_of(reader) : 0;
		ch->told_any = false;
		return out;
	}
	out.size = size < left ? size : left;
	if (out.size == left) {
		out.memory = steal(ch->pending);
		out.data = out.memory + ch->pending_at;
		ch->pending_at = ch->pending_size = 0;
	} else {
		out.memory = malloc(out.size);
		if (!out.memory) {
			out.err = -ENOMEM;
			return out;
		}
		memcpy(out.memory, ch->pending + ch->pending_at, out.size);
		out.data = out.memory;
		ch->pending_at += out.size;
	}
	if (out.size) {
		ch->told_any = true;
		ch->told_last = out.data[out.size - 1];
	}
	return out;
}

/* An error of the source has no call of its own. */
static void note_error(struct ctl_channel *ch, int err)
{
	struct call c;
	call_init(&c, 0);
	(void)ctl_fail(ch->node, &c, err, "read"); /* noted; the number goes with the answer */
	call_destroy(&c);
}

static void portion_reply(struct ctl_channel *ch, struct op *op, struct portion *what)
{
	if (what->err && ch->node)
		note_error(ch, what->err);
	/* After the answer the opening may be gone. */
	if (what->err)
		op_reply_err(op, what->err);
	else
		op_reply_data(op, what->data, what->size);
	free(what->memory);
}

static void waiter_remove(struct ctl_waiter *w)
{
	struct ctl_waiter **at = &w->ch->first;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	if (!*at)
		w->ch->last = at;
}

static void on_read_cancelled(struct op *op, void *arg)
{
	struct ctl_waiter *w = arg;
	{
		AUTO_UNLOCK(&w->ch->lock);
		waiter_remove(w);
	}
	free(w);
	op_reply_err(op, -EINTR);
}

static struct ctl_waiter *channel_waiter(struct ctl_channel *ch)
{
	struct ctl_waiter *w = ch->first;
	while (w && w->gone)
		w = w->next;
	return w;
}

static int channel_park(struct ctl_channel *ch, struct op *op, size_t size)
{
	AUTO_FREE struct ctl_waiter *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	*w = (struct ctl_waiter){.ch = ch, .op = op, .size = size, .pid = op_pid(op)};
	int err = op_park(op, on_read_cancelled, w);
	if (err)
		return err;
	*ch->last = w;
	ch->last = &w->next;
	(void)steal(w); /* the list's now */
	return OP_REPLIED;
}

int ctl_channel_read(struct ctl_channel *ch, struct op *op, size_t size)
{
	struct portion what;
	{
		AUTO_UNLOCK(&ch->lock);
		if (channel_waiter(ch) || !channel_fill(ch, size))
			return ch->nonblock ? -EAGAIN : channel_park(ch, op, size);
		what = channel_take(ch, size, op_pid(op));
	}
	portion_reply(ch, op, &what);
	return OP_REPLIED;
}

/* The next read to be answered, taken back, and its answer. With the lock held. */
static struct op *channel_next_answer(struct ctl_channel *ch, struct portion *what)
{
	struct ctl_waiter *w;
	while ((w = channel_waiter(ch)) && channel_fill(ch, w->size)) {
		if (!op_unpark(w->op)) {
			w->gone = true;
			continue;
		}
		struct op *op = w->op;
		*what = channel_take(ch, w->size, w->pid);
		waiter_remove(w);
		free(w);
		return op;
	}
	return NULL;
}

void ctl_channel_serve(struct ctl_channel *ch)
{
	for (;;) {
		struct portion what;
		struct op *op;
		struct op_poll *poll = NULL;
		{
			AUTO_UNLOCK(&ch->lock);
			op = channel_next_answer(ch, &what);
			bool drained = ch->full && ch->writable(ch->source);
			if (!op && ch->poll && (drained || channel_fill(ch, CHUNK)))
				poll = steal(ch->poll);
		}
		if (op) {
			portion_reply(ch, op, &what);
			continue;
		}
		if (poll) {
			op_poll_notify(poll);
			op_poll_free(poll);
		}
		return;
	}
}

void ctl_channel_wake(struct ctl_channel *ch)
{
	ctl_pump_wake(ch->pump, ch);
}

int ctl_channel_poll(struct ctl_channel *ch, struct op_poll *p, unsigned *revents)
{
	struct op_poll *old = p;
	{
		AUTO_UNLOCK(&ch->lock);
		ch->full = ch->writable && !ch->writable(ch->source);
		if (ch->writable && !ch->full)
			*revents |= POLLOUT | POLLWRNORM;
		if (channel_fill(ch, CHUNK))
			*revents |= POLLIN | POLLRDNORM;
		/* Somebody may wait for one of the two while there is the other. */
		if (p && (ch->full || !(*revents & POLLIN))) {
			/* Only the newest is kept: the kernel asks with the same one as long as somebody waits. */
			old = ch->poll;
			ch->poll = p;
		}
	}
	op_poll_free(old);
	return 0;
}

/* The pump may be at it, for who polled: what that is told does not matter any more. */
void ctl_channel_leave(struct ctl_channel *ch)
{
	AUTO_UNLOCK(&ch->lock);
	ch->next = NULL;
	ch->writable = NULL;
	ch->full = false;
}

void ctl_channel_destroy(struct ctl_channel *ch)
{
	ctl_pump_leave(ch->pump, ch);
	for (;;) {
		struct op *op = NULL;
		{
			AUTO_UNLOCK(&ch->lock);
			struct ctl_waiter *w = channel_waiter(ch);
			if (!w)
				break;
			if (!op_unpark(w->op)) {
				w->gone = true;
				continue;
			}
			op = w->op;
			waiter_remove(w);
			free(w);
		}
		op_reply_err(op, -EINTR);
	}
	op_poll_free(ch->poll);
	free(ch->pending);
	pthread_mutex_destroy(&ch->lock);
}

/* --- CTL_STREAM --- */

struct ctl_stream {
	struct ctl_file file;
	struct ctl_channel ch;
	const struct ctl_stream_ops *ops;
	void *cursor;
};

void ctl_stream_wake(struct ctl_stream *s)
{
	ctl_channel_wake(&s->ch);
}

static int stream_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	(void)off; /* the cursor is the opening's own */
	return ctl_channel_read(&((struct ctl_stream *)f)->ch, op, size);
}

static void stream_release(struct ctl_file *f, struct op *op)
{
	struct ctl_stream *s = (struct ctl_stream *)f;
	(void)op;
	ctl_channel_leave(&s->ch);
	s->ops->close(s->cursor);
	ctl_channel_destroy(&s->ch);
	free(s);
}

static int stream_poll(struct ctl_file *f, struct op_poll *p, unsigned *revents)
{
	return ctl_channel_poll(&((struct ctl_stream *)f)->ch, p, revents);
}

static const struct ctl_file_ops stream_file_ops = {
	.read = stream_read, .release = stream_release, .poll = stream_poll};

/* Would the opening start the sandbox? One that is starting was wanted already. */
static bool would_start(const struct ctl_node *n)
{
	struct sandbox_status st;
	if (!n->row->starts)
		return false;
	sandbox_get_status(n->ref.sandbox, &st);
	return st.state == SANDBOX_UNKNOWN;
}

int ctl_stream_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	if (ctl_file_writes(o->flags))
		return -EACCES;
	if ((o->flags & O_NONBLOCK) && would_start(n))
		return -EAGAIN;
	AUTO_FREE struct ctl_stream *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->file.ops = &stream_file_ops;
	s->ops = n->row->stream;
	int err = ctl_channel_init(&s->ch, ctl_tree_pump(n->tree), o->flags);
	if (err)
		return err;
	err = s->ops->open(&n->ref, op_call(op), s, &s->cursor);
	if (err) {
		ctl_channel_destroy(&s->ch);
		return err;
	}
	{
		AUTO_UNLOCK(&s->ch.lock);
		s->ch.node = n->row->kind == CTL_STREAM ? n : NULL;
		s->ch.next = s->ops->next;
		s->ch.whole = n->row->whole && !s->ch.nonblock;
		s->ch.source = s->cursor;
	}
	o->how = NODE_DIRECT_IO | NODE_STREAM;
	*out = &steal(s)->file;
	return 0;
}
