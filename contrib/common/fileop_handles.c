/*
 * Clients of the file protocol and their handles. Owns the table of clients, in each the table of
 * handles, and the leases. Closing a handle takes it out of the table; its descriptors go with the last
 * call that uses it. Must not know what calls do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { EXPIRE_EVERY_MS = 60000 };

int64_t fileop_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- one handle --- */

struct fileop_handle *fileop_handle_new(uint64_t number, unsigned flags)
{
	struct fileop_handle *h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	if (pthread_rwlock_init(&h->lock, NULL) != 0) {
		free(h);
		return NULL;
	}
	h->refs = 1;
	h->number = number;
	h->flags = flags;
	h->fd = h->target = h->dir = h->temp_dir = -1;
	return h;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void handle_free(struct fileop_handle *h)
{
	if (h->temp_dir >= 0)
		fileop_stage_drop(h);
	/* Errors of close are those of fsync, which whoever wants them asks for. */
	close_if_open(h->fd);
	close_if_open(h->target);
	close_if_open(h->dir);
	free(h->name);
	free(h->listing);
	pthread_rwlock_destroy(&h->lock);
	free(h);
}

void fileop_handle_put(struct fileop_server *s, struct fileop_handle *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&s->lock);
	bool last = --h->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (last)
		handle_free(h);
}

/* --- a client's table; the server's lock is held --- */

static struct fileop_handle **find(struct fileop_client *c, uint64_t number)
{
	struct fileop_handle **at =
		&c->handles[(number * 0x9e3779b97f4a7c15u) >> 32 & (FILEOP_HANDLE_BUCKETS - 1)];
	while (*at && (*at)->number != number)
		at = &(*at)->next;
	return at;
}

bool fileop_handle_exists(struct fileop_batch *b, uint64_t number)
{
	AUTO_UNLOCK(&b->server->lock);
	return *find(b->client, number) != NULL;
}

int fileop_handle_add(struct fileop_batch *b, struct fileop_handle *h)
{
	AUTO_UNLOCK(&b->server->lock);
	struct fileop_handle **at = find(b->client, h->number);
	if (*at)
		return -EEXIST;
	h->refs++;
	*at = h;
	b->client->handle_count++;
	return 0;
}

struct fileop_handle *fileop_handle_get(struct fileop_batch *b, uint64_t number)
{
	AUTO_UNLOCK(&b->server->lock);
	struct fileop_handle *h = *find(b->client, number);
	if (h)
		h->refs++;
	return h;
}

int fileop_handle_remove(struct fileop_batch *b, uint64_t number)
{
	struct fileop_handle *h;
	{
		AUTO_UNLOCK(&b->server->lock);
		struct fileop_handle **at = find(b->client, number);
		h = *at;
		if (!h)
			return -EBADF;
		*at = h->next;
		b->client->handle_count--;
	}
	fileop_handle_put(b->server, h);
	return 0;
}

static int use(struct fileop_batch *b, uint64_t number, bool alone, struct fileop_use *out)
{
	struct fileop_handle *h = fileop_handle_get(b, number);
	if (!h)
		return -EBADF;
	int err = alone ? pthread_rwlock_wrlock(&h->lock) : pthread_rwlock_rdlock(&h->lock);
	if (err) {
		fileop_handle_put(b->server, h);
		return -err;
	}
	out->server = b->server;
	out->h = h;
	return 0;
}

int fileop_use_shared(struct fileop_batch *b, uint64_t number, struct fileop_use *out)
{
	return use(b, number, false, out);
}

int fileop_use_alone(struct fileop_batch *b, uint64_t number, struct fileop_use *out)
{
	return use(b, number, true, out);
}

void fileop_use_end(struct fileop_use *u)
{
	if (!u->h)
		return;
	pthread_rwlock_unlock(&u->h->lock);
	fileop_handle_put(u->server, steal(u->h));
}

/* --- clients --- */

/* Takes all handles out of c, as a list (the server's lock is held). */
static struct fileop_handle *take_handles(struct fileop_client *c, struct fileop_handle *list)
{
	for (size_t i = 0; c->handle_count && i < FILEOP_HANDLE_BUCKETS; i++)
		while (c->handles[i]) {
			struct fileop_handle *h = c->handles[i];
			c->handles[i] = h->next;
			c->handle_count--;
			h->next = list;
			list = h;
		}
	return list;
}

static void put_handles(struct fileop_server *s, struct fileop_handle *list)
{
	while (list) {
		struct fileop_handle *h = list;
		list = h->next;
		fileop_handle_put(s, h);
	}
}

/* The one unheard of for longest that runs nothing, taken out of the table; NULL if all do. */
static struct fileop_client *take_idle(struct fileop_server *s)
{
	struct fileop_client **oldest = NULL;
	for (struct fileop_client **at = &s->clients; *at; at = &(*at)->next)
		if (!(*at)->running && (!oldest || (*at)->heard_ms < (*oldest)->heard_ms))
			oldest = at;
	if (!oldest)
		return NULL;
	struct fileop_client *c = *oldest;
	*oldest = c->next;
	s->client_count--;
	return c;
}

struct fileop_client *fileop_client_enter(
	struct fileop_server *s, const uint8_t id[FILEOP_ID_SIZE], int64_t now_ms)
{
	struct fileop_handle *lost = NULL;
	struct fileop_client *evicted = NULL, *c;
	{
		AUTO_UNLOCK(&s->lock);
		for (c = s->clients; c; c = c->next)
			if (memcmp(c->id, id, FILEOP_ID_SIZE) == 0)
				break;
		if (!c) {
			if (s->client_count >= FILEOP_CLIENTS && (evicted = take_idle(s)) != NULL)
				lost = take_handles(evicted, NULL);
			c = calloc(1, sizeof(*c));
			if (c) {
				memcpy(c->id, id, FILEOP_ID_SIZE);
				c->next = s->clients;
				s->clients = c;
				s->client_count++;
			}
		}
		if (c) {
			c->running++;
			c->heard_ms = now_ms;
		}
	}
	put_handles(s, lost);
	if (evicted) {
		fileop_replay_free(evicted);
		free(evicted);
	}
	return c;
}

void fileop_client_leave(struct fileop_server *s, struct fileop_client *c, int64_t now_ms)
{
	AUTO_UNLOCK(&s->lock);
	c->running--;
	c->heard_ms = now_ms;
}

/*
 * Only handles end with the lease. What is remembered of a client stays while there is room for it: one that comes
 * back from a long sleep may still repeat its last batch, and the boot id tells it that we remember.
 */
void fileop_expire(struct fileop_server *s, int64_t now_ms)
{
	struct fileop_handle *lost = NULL;
	{
		AUTO_UNLOCK(&s->lock);
		if (now_ms - s->expired_ms < EXPIRE_EVERY_MS)
			return;
		s->expired_ms = now_ms;
		for (struct fileop_client *c = s->clients; c; c = c->next)
			if (!c->running && now_ms - c->heard_ms > (int64_t)FILEOP_LEASE_SECONDS * 1000)
				lost = take_handles(c, lost);
	}
	put_handles(s, lost);
}

void fileop_clients_free(struct fileop_server *s)
{
	while (s->clients) {
		struct fileop_client *c = s->clients;
		s->clients = c->next;
		put_handles(s, take_handles(c, NULL));
		fileop_replay_free(c);
		free(c);
	}
	s->client_count = 0;
}
