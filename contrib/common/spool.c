/*
 * The spool of spool.h: one nameless file and the index of its segments.
 *
 * The file is a ring of `limit` bytes at most: byte number k of those that were stored lies at
 * k % limit, so the oldest bytes are overwritten by the newest and a command that prints for
 * ever costs no more disk than its limit. Offsets of a view count every byte
 * that ever came, gaps too; a segment is a run of one stream and knows where it starts
 * in the three views and in the store. Its end is the start of its successor.
 *
 * Owns the file, the index, the lock and the list of watchers. Touches no other room.
 * Lock order: watch_lock is never taken while lock is held.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	/*
	 * A command that alternates between its streams byte by byte makes a segment of each byte.
	 * This bounds the memory of the index (32 bytes each); past it the oldest go, as at the limit.
	 */
	SEGMENTS_MAX = 1 << 19,
	SPARE_MAX = 64 << 10
};

struct segment {
	uint64_t
		at[2]; /* offset of its start in SPOOL_BOTH and SPOOL_STDOUT; stderr is the difference */
	uint64_t stored; /* bytes stored before it */
	uint8_t stream;
	bool gap; /* nothing is stored for it */
};

struct spool_watch {
	struct spool_watch *next;
	void (*cb)(void *arg);
	void *arg;
};

struct spool {
	int fd;
	uint64_t limit;

	pthread_mutex_t lock;     /* covers all until watch_lock */
	struct segment *segments; /* [head, tail) */
	size_t head, tail, capacity;
	struct segment end; /* where the next segment will start */
	bool ended;
	/*
	 * What the disk did not take first: what is printed when it is full is what says so. Of the stored bytes it holds
	 * [spare_at, spare_at + spare_size).
	 */
	char *spare;
	uint64_t spare_at;
	size_t spare_size;
	int refused; /* a positive errno */

	pthread_mutex_t watch_lock; /* held while callbacks run, so that unwatch waits for them */
	struct spool_watch *watches;
};

/* --- the nameless file --- */

static int open_nameless(const char *dir, int *out)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
		return -errno;
	if (fd < 0) {
		/* A file system without nameless files: a name for a moment. */
		AUTO_FREE char *name = NULL;
		if (asprintf(&name, "%s/spool-XXXXXX", dir) < 0) {
			name = NULL;
			return -ENOMEM;
		}
		fd = mkostemp(name, O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (unlink(name) < 0) {
			int err = -errno;
			close(fd);
			return err;
		}
	}
	*out = fd;
	return 0;
}

int spool_new(const char *dir, uint64_t limit, struct spool **out)
{
	AUTO_FREE struct spool *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	int err = open_nameless(dir, &s->fd);
	if (err < 0)
		return err;
	s->limit = limit ? limit : 1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->watch_lock, NULL);
	*out = steal(s);
	return 0;
}

void spool_put(struct spool *s)
{
	if (!s)
		return;
	while (s->watches) {
		struct spool_watch *w = s->watches;
		s->watches = w->next;
		free(w);
	}
	close(s->fd);
	free(s->segments);
	free(s->spare);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->watch_lock);
	free(s);
}

/* --- the index (all with the lock held) --- */

static uint64_t start_in(const struct segment *g, enum spool_view view)
{
	return view == SPOOL_STDERR ? g->at[0] - g->at[1] : g->at[view];
}

static const struct segment *segment_end(const struct spool *s, size_t i)
{
	return i + 1 < s->tail ? &s->segments[i + 1] : &s->end;
}

static uint64_t segment_size(const struct spool *s, size_t i)
{
	return segment_end(s, i)->at[0] - s->segments[i].at[0];
}

static bool in_view(const struct segment *g, enum spool_view view)
{
	return view == SPOOL_BOTH || g->stream == view;
}

/* The segment that holds offset off of the view, or tail. Offsets before the head give the head's first of that view. */
static size_t segment_find(const struct spool *s, enum spool_view view, uint64_t off)
{
	size_t low = s->head, high = s->tail;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (start_in(&s->segments[middle], view) <= off)
			low = middle + 1;
		else
			high = middle;
	}
	/* The last that starts at or before off: those of the other stream start where their successor does. */
	size_t i = low > s->head ? low - 1 : s->head;
	while (i < s->tail && !in_view(&s->segments[i], view))
		i++;
	return i;
}

static uint64_t view_first(const struct spool *s, enum spool_view view, uint64_t from)
{
	for (size_t i = segment_find(s, view, from); i < s->tail; i++) {
		const struct segment *g = &s->segments[i];
		if (in_view(g, view) && !g->gap) {
			uint64_t start = start_in(g, view);
			return start > from ? start : from;
		}
	}
	return start_in(&s->end, view);
}

/* Takes n bytes off the front of the head segment. */
static void head_cut(struct spool *s, uint64_t n)
{
	struct segment *g = &s->segments[s->head];
	if (n == segment_size(s, s->head)) {
		s->head++;
		return;
	}
	g->at[0] += n;
	if (g->stream == SPOOL_STDOUT)
		g->at[1] += n;
	if (!g->gap)
		g->stored += n;
}

/* Forgets the oldest until at most `keep` stored bytes are left, and gaps that lead nowhere. */
static void drop_oldest(struct spool *s, uint64_t keep)
{
	while (s->head < s->tail) {
		const struct segment *g = &s->segments[s->head];
		uint64_t kept = s->end.stored - g->stored;
		uint64_t size = segment_size(s, s->head);
		if (g->gap) {
			head_cut(s, size);
			continue;
		}
		if (kept <= keep)
			break;
		uint64_t over = kept - keep;
		head_cut(s, over < size ? over : size);
	}
}

/* Makes room for one more segment. */
static int index_reserve(struct spool *s)
{
	if (s->tail - s->head >= SEGMENTS_MAX) {
		/* A sixteenth at once, so that this is rare. */
		s->head += SEGMENTS_MAX / 16;
		drop_oldest(s, UINT64_MAX);
	}
	if (s->tail < s->capacity)
		return 0;
	if (s->head > s->capacity / 2) {
		memmove(s->segments, s->segments + s->head, (s->tail - s->head) * sizeof *s->segments);
		s->tail -= s->head;
		s->head = 0;
		return 0;
	}
	size_t capacity = s->capacity ? s->capacity * 2 : 8;
	struct segment *segments = realloc(s->segments, capacity * sizeof *segments);
	if (!segments)
		return -ENOMEM;
	s->segments = segments;
	s->capacity = capacity;
	return 0;
}

/* Adds n bytes that are already in the store, or a gap, as a segment or to the newest one. Cannot fail after index_reserve. */
static void index_add(struct spool *s, enum spool_view stream, bool gap, uint64_t n)
{
	struct segment *last = s->tail > s->head ? &s->segments[s->tail - 1] : NULL;
	if (!last || last->stream != stream || last->gap != gap) {
		struct segment g = s->end;
		g.stream = (uint8_t)stream;
		g.gap = gap;
		s->segments[s->tail++] = g;
	}
	s->end.at[0] += n;
	if (stream == SPOOL_STDOUT)
		s->end.at[1] += n;
	if (!gap)
		s->end.stored += n;
}

/* --- the store (with the lock held) --- */

static int store_write(struct spool *s, const char *p, size_t n, uint64_t at)
{
	while (n) {
		uint64_t place = at % s->limit;
		size_t part = n < s->limit - place ? n : (size_t)(s->limit - place);
		ssize_t done = pwrite(s->fd, p, part, (off_t)place);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
		at += (uint64_t)done;
	}
	return 0;
}

/* In memory: only right behind what is there, so that one place tells of all. False: there is no room. */
static bool spare_write(struct spool *s, const char *p, size_t n, uint64_t at)
{
	if (!s->spare) {
		s->spare = malloc(SPARE_MAX);
		s->spare_at = at;
	}
	if (!s->spare || at != s->spare_at + s->spare_size || n > SPARE_MAX - s->spare_size)
		return false;
	memcpy(s->spare + s->spare_size, p, n);
	s->spare_size += n;
	return true;
}

static int store_add(struct spool *s, const char *p, size_t n, uint64_t at)
{
	if (s->spare && spare_write(s, p, n, at))
		return 0;
	int err = store_write(s, p, n, at);
	if (!err || (!s->spare && spare_write(s, p, n, at)))
		return 0;
	s->refused = -err;
	return err;
}

static int store_read(struct spool *s, char *p, size_t n, uint64_t at)
{
	while (n) {
		if (at >= s->spare_at && at - s->spare_at < s->spare_size) {
			uint64_t into = at - s->spare_at;
			size_t part = n < s->spare_size - into ? n : (size_t)(s->spare_size - into);
			memcpy(p, s->spare + into, part);
			p += part;
			n -= part;
			at += part;
			continue;
		}
		uint64_t place = at % s->limit;
		size_t part = n < s->limit - place ? n : (size_t)(s->limit - place);
		if (s->spare_size && at < s->spare_at && part > s->spare_at - at)
			part = (size_t)(s->spare_at - at);
		ssize_t done = pread(s->fd, p, part, (off_t)place);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
		at += (uint64_t)done;
	}
	return 0;
}

/* p NULL: a gap. */
static int append_locked(struct spool *s, enum spool_view stream, const char *p, uint64_t n)
{
	if (s->ended)
		return -EPIPE;
	if (n > (uint64_t)INT64_MAX - s->end.at[0])
		return -EOVERFLOW;
	int err = index_reserve(s);
	if (err < 0)
		return err;
	if (p) {
		/* Of more than the limit only the end is ever stored; the rest has come and gone at once. */
		uint64_t skip = n > s->limit ? n - s->limit : 0;
		drop_oldest(s, s->limit - (n - skip));
		/* The bytes are written before the index says so: a failed write changes nothing but what the ring dropped. */
		err = store_add(s, p + skip, (size_t)(n - skip), s->end.stored + skip);
		if (err < 0)
			return err;
	}
	index_add(s, stream, !p, n);
	drop_oldest(s, s->limit);
	return 0;
}

/* --- what others call --- */

static void spool_tell(struct spool *s)
{
	AUTO_UNLOCK(&s->watch_lock);
	for (struct spool_watch *w = s->watches; w; w = w->next)
		w->cb(w->arg);
}

/* p NULL: a gap. */
static int append(struct spool *s, enum spool_view stream, const char *p, uint64_t n)
{
	if (stream != SPOOL_STDOUT && stream != SPOOL_STDERR)
		return -EINVAL;
	if (!n)
		return 0;
	{
		AUTO_UNLOCK(&s->lock);
		int err = append_locked(s, stream, p, n);
		if (err < 0)
			return err;
	}
	spool_tell(s);
	return 0;
}

int spool_append(struct spool *s, enum spool_view stream, const void *p, size_t n)
{
	return append(s, stream, p, n);
}

int spool_append_gap(struct spool *s, enum spool_view stream, uint64_t n)
{
	return append(s, stream, NULL, n);
}

void spool_end(struct spool *s)
{
	{
		AUTO_UNLOCK(&s->lock);
		if (s->ended)
			return;
		s->ended = true;
	}
	spool_tell(s);
}

bool spool_ended(struct spool *s)
{
	AUTO_UNLOCK(&s->lock);
	return s->ended;
}

int spool_refused(struct spool *s)
{
	AUTO_UNLOCK(&s->lock);
	return s->refused;
}

uint64_t spool_size(struct spool *s, enum spool_view view)
{
	AUTO_UNLOCK(&s->lock);
	return start_in(&s->end, view);
}

uint64_t spool_first(struct spool *s, enum spool_view view)
{
	AUTO_UNLOCK(&s->lock);
	return view_first(s, view, 0);
}

/* From off on, which can be read in segment i, with the lock held. */
static ssize_t read_locked(struct spool *s, size_t i, enum spool_view view, char *p, size_t n,
	uint64_t off, enum spool_view *stream)
{
	size_t done = 0;
	for (; i < s->tail && done < n; i++) {
		const struct segment *g = &s->segments[i];
		if (!in_view(g, view))
			continue;
		if (g->gap || (stream && done && g->stream != *stream))
			break;
		uint64_t into = off + done - start_in(g, view);
		uint64_t size = segment_size(s, i) - into;
		size_t part = size < n - done ? (size_t)size : n - done;
		int err = store_read(s, p + done, part, g->stored + into);
		if (err < 0)
			return done ? (ssize_t)done : err;
		if (stream)
			*stream = (enum spool_view)g->stream;
		done += part;
	}
	return (ssize_t)done;
}

/* The first offset at or after off that can be read, or the end; its segment in *i. With the lock held. */
static uint64_t readable_from(struct spool *s, enum spool_view view, uint64_t off, size_t *i)
{
	*i = segment_find(s, view, off);
	if (*i < s->tail && !s->segments[*i].gap && off >= start_in(&s->segments[*i], view))
		return off;
	uint64_t next = view_first(s, view, off);
	*i = segment_find(s, view, next);
	return next;
}

ssize_t spool_pread(struct spool *s, enum spool_view view, void *p, size_t n, uint64_t off,
	enum spool_view *stream, uint64_t *next)
{
	AUTO_UNLOCK(&s->lock);
	size_t i;
	if (off >= start_in(&s->end, view) || !n)
		return 0;
	uint64_t first = readable_from(s, view, off, &i);
	if (first != off) {
		if (next)
			*next = first;
		return -ESPIPE;
	}
	return read_locked(s, i, view, p, n < PTRDIFF_MAX ? n : PTRDIFF_MAX, off, stream);
}

ssize_t spool_read_on(struct spool *s, enum spool_view view, void *p, size_t n, uint64_t *off,
	enum spool_view *stream, uint64_t *lost)
{
	AUTO_UNLOCK(&s->lock);
	size_t i;
	*lost = 0;
	if (*off >= start_in(&s->end, view) || !n)
		return 0;
	uint64_t first = readable_from(s, view, *off, &i);
	ssize_t got = read_locked(s, i, view, p, n < PTRDIFF_MAX ? n : PTRDIFF_MAX, first, stream);
	if (got < 0)
		return got;
	*lost = first - *off;
	*off = first + (uint64_t)got;
	return got;
}

struct spool_watch *spool_watch(struct spool *s, void (*cb)(void *arg), void *arg)
{
	struct spool_watch *w = malloc(sizeof *w);
	if (!w)
		return NULL;
	AUTO_UNLOCK(&s->watch_lock);
	*w = (struct spool_watch){.next = s->watches, .cb = cb, .arg = arg};
	s->watches = w;
	return w;
}

void spool_unwatch(struct spool *s, struct spool_watch *w)
{
	if (!w)
		return;
	AUTO_UNLOCK(&s->watch_lock);
	for (struct spool_watch **at = &s->watches; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			free(w);
			return;
		}
	}
}
