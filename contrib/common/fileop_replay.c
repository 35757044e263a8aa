/*
 * Remembered replies: why a batch whose answer was lost may be sent again. Owns the list of each
 * client, oldest first, under the server's lock; a repetition of a batch that still runs waits for it.
 *
 * Rather than do a batch twice, a repetition is refused (LOST) when its reply is not known any more: it was too
 * large, the memory was full, or its number lies below that of one already dropped. The last may hit a batch that
 * was never done, overtaken by thousands of later ones; an error is then the safe answer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { ABANDON_S = 1 };

struct fileop_memory {
	uint64_t seq;
	bool done;
	unsigned waiting; /* threads that wait for done or read the reply */
	char *reply;      /* NULL when done: not known any more */
	size_t size;
	struct fileop_memory *next;
};

static void drop(struct fileop_client *c, struct fileop_memory **at, struct fileop_memory *before)
{
	struct fileop_memory *m = *at;
	*at = m->next;
	if (c->newest == m)
		c->newest = before;
	if (m->seq > c->forgotten)
		c->forgotten = m->seq;
	c->remembered--;
	c->remembered_bytes -= m->reply ? m->size : 0;
	free(m->reply);
	free(m);
}

static void trim(struct fileop_client *c, uint64_t acked)
{
	struct fileop_memory **at = &c->oldest, *before = NULL;
	while (*at && c->remembered > FILEOP_REMEMBERED_MIN) {
		struct fileop_memory *m = *at;
		bool idle = m->done && !m->waiting;
		if (idle && (m->seq <= acked || c->remembered > FILEOP_REMEMBERED_MAX)) {
			drop(c, at, before);
		} else {
			before = m;
			at = &m->next;
		}
	}
}

static int remember(struct fileop_client *c, uint64_t seq, struct fileop_memory **mem)
{
	struct fileop_memory *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->seq = seq;
	if (c->newest)
		c->newest->next = m;
	else
		c->oldest = m;
	c->newest = m;
	c->remembered++;
	*mem = m;
	return FILEOP_REPLAY_NEW;
}

int fileop_replay_begin(struct fileop_server *s, struct fileop_client *c, uint64_t seq,
	uint64_t acked, struct fileop_memory **mem, struct buf *reply)
{
	AUTO_UNLOCK(&s->lock);
	trim(c, acked);
	struct fileop_memory *m = c->oldest;
	while (m && m->seq != seq)
		m = m->next;
	if (!m)
		return seq <= c->forgotten ? (int)FILEOP_REPLAY_LOST : remember(c, seq, mem);
	m->waiting++;
	while (!m->done)
		pthread_cond_wait(&s->remembered, &s->lock);
	m->waiting--;
	if (!m->reply)
		return FILEOP_REPLAY_LOST;
	buf_add(reply, m->reply, m->size);
	return buf_error(reply) ? -ENOMEM : (int)FILEOP_REPLAY_REPEATED;
}

int fileop_call_abandon(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	uint64_t seq = reader_u64(in);
	int err = fileop_args_end(&a);
	struct fileop_client *c = b->client;
	struct timespec limit;

	(void)out;
	if (err)
		return err;
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += ABANDON_S;
	AUTO_UNLOCK(&b->server->lock);
	struct fileop_memory *m = c->oldest;
	while (m && m->seq != seq)
		m = m->next;
	if (!m && seq <= c->forgotten)
		return 0;
	if (!m) {
		err = remember(c, seq, &m);
		if (err < 0)
			return err;
		m->done = true; /* and without a reply: whoever comes with it is refused */
		return 0;
	}
	m->waiting++;
	while (!m->done && pthread_cond_clockwait(
						   &b->server->remembered, &b->server->lock, CLOCK_MONOTONIC, &limit) == 0)
		;
	m->waiting--;
	return 0;
}

void fileop_replay_end(struct fileop_server *s, struct fileop_client *c, struct fileop_memory *mem,
	const char *reply, size_t size)
{
	char *copy = reply && size <= FILEOP_REMEMBERED_REPLY ? malloc(size) : NULL;
	if (copy)
		memcpy(copy, reply, size);
	AUTO_UNLOCK(&s->lock);
	mem->done = true;
	mem->reply = copy;
	mem->size = size;
	c->remembered_bytes += copy ? size : 0;
	/* The replies go, the numbers stay: a repetition is known for what it is. */
	for (struct fileop_memory *m = c->oldest;
		 m && m != mem && c->remembered_bytes > FILEOP_REMEMBERED_BYTES; m = m->next)
		if (m->reply) {
			c->remembered_bytes -= m->size;
			free(steal(m->reply));
		}
	pthread_cond_broadcast(&s->remembered);
}

void fileop_replay_free(struct fileop_client *c)
{
	while (c->oldest)
		drop(c, &c->oldest, NULL);
}
