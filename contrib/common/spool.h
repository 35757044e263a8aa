/*
 * A spool: the output of one command, on disk, bounded, with readers that
 * follow it. Used by sandboxd for what its commands print and by sandboxfs for what it
 * keeps of runs.
 *
 * Bytes of two streams are kept in the order of their arrival in one nameless file, and an index
 * of segments tells the streams apart. Three views can be read by offset: both streams, only stdout, only stderr.
 * Beyond `limit` bytes the oldest go (their blocks are given back); offsets stay what
 * they were, spool_first() tells where a view now begins.
 *
 * Thread-safe: one mutex inside. Watchers are called without it, on the thread that appended.
 */
#ifndef SBX_SPOOL_H
#define SBX_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum spool_view { SPOOL_BOTH = 0, SPOOL_STDOUT = 1, SPOOL_STDERR = 2 };

struct spool;

/* 0 and *out new with one owner, or a negative errno. dir: where the nameless file goes. limit in bytes, over both streams. */
int spool_new(const char *dir, uint64_t limit, struct spool **out);
void spool_put(struct spool *s);

/*
 * Appends to stream SPOOL_STDOUT or SPOOL_STDERR. 0, or a negative errno of the disk (nothing was appended then). -EPIPE after spool_end.
 * The first 64 KiB that the disk does not take are kept in memory.
 */
int spool_append(struct spool *s, enum spool_view stream, const void *p, size_t n);
/* Notes that n bytes of the stream are missing at this place (they count in offsets and read as a gap). */
int spool_append_gap(struct spool *s, enum spool_view stream, uint64_t n);
/* No more will come. Watchers are told. Idempotent. */
void spool_end(struct spool *s);
bool spool_ended(struct spool *s);
/* The positive errno of the newest append that failed by the disk; 0: none did. */
int spool_refused(struct spool *s);

uint64_t spool_size(struct spool *s, enum spool_view view);  /* offset of its end */
uint64_t spool_first(struct spool *s, enum spool_view view); /* offset of the oldest byte kept */

/*
 * Reads up to n bytes of a view at off. >0 bytes; 0 at the end; -ESPIPE if off lies before spool_first or in a gap
 * (*next then is the first offset after off that can be read); another negative errno of the disk.
 * With stream not NULL, the bytes returned are all of one stream, which is told there.
 */
ssize_t spool_pread(struct spool *s, enum spool_view view, void *p, size_t n, uint64_t off,
	enum spool_view *stream, uint64_t *next);

/*
 * The same for a reader that goes on whatever was lost: reads at *off or, if bytes there are gone, at the first that can be read, and
 * moves *off past what it read; *lost tells how many bytes were skipped. In one step: beside a fast writer that place
 * would be gone again by a second call. 0 with *lost: nothing but a gap was left.
 */
ssize_t spool_read_on(struct spool *s, enum spool_view view, void *p, size_t n, uint64_t *off,
	enum spool_view *stream, uint64_t *lost);

/* cb(arg) is called after each append and at the end, until spool_unwatch returns. It must not block nor call spool_watch/unwatch. */
struct spool_watch;
struct spool_watch *spool_watch(struct spool *s, void (*cb)(void *arg), void *arg);
void spool_unwatch(struct spool *s, struct spool_watch *w);

#endif
