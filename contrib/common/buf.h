/*
 * A growing byte buffer, and a bounds-checked reader over bytes from outside.
 *
 * Owns nothing but the memory of each buffer; no locks: a buffer belongs to
 * one thread at a time. Text for people, `name value` files and the binary
 * messages of the file protocol are all made with it.
 *
 * Out of memory is remembered in the buffer (`failed`), so that a sequence of
 * appends needs one check at its end: buf_error().
 */
#ifndef SBX_BUF_H
#define SBX_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data; /* size bytes used; followed by a NUL once anything was appended */
	size_t size;
	size_t capacity;
	bool failed; /* an append ran out of memory; the content is not to be used */
};

#define BUF_INIT                                                                                   \
	{                                                                                              \
		NULL, 0, 0, false                                                                          \
	}
#define AUTO_BUF __attribute__((cleanup(buf_release))) struct buf

void buf_release(struct buf *b);    /* frees the memory; the buffer is empty again and usable */
void buf_clear(struct buf *b);      /* empties it and keeps the memory */
char *buf_steal(struct buf *b);     /* returns new: the NUL-terminated content; NULL if failed */
int buf_error(const struct buf *b); /* 0 or -ENOMEM */

/* Makes room for n more bytes and returns where they go (NULL: out of memory). Does not change size. */
char *buf_reserve(struct buf *b, size_t n);

void buf_add(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/* Drops the first n bytes (n <= size). */
void buf_consume(struct buf *b, size_t n);

/* Little-endian integers, and a byte string as u32 length + bytes. */
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_bytes(struct buf *b, const void *p, size_t n);
/* Overwrites the u32 at offset at (written before as a placeholder). */
void buf_patch_u32(struct buf *b, size_t at, uint32_t v);

/*
 * Appends s as one word of POSIX shell input, within '…'; any byte but NUL passes.
 */
void buf_shell_quote(struct buf *b, const char *s);

/* A reader over borrowed bytes. A read past the end sets bad and gives zeros. */
struct reader {
	const unsigned char *p;
	size_t left;
	bool bad;
};

void reader_init(struct reader *r, const void *p, size_t n);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
/* A borrowed view of n bytes, NULL (and bad) if there are fewer. */
const void *reader_take(struct reader *r, size_t n);
/* A byte string written by buf_bytes: borrowed, its length in *n. */
const void *reader_bytes(struct reader *r, size_t *n);
/* The same as a new NUL-terminated string; NULL with bad set if it holds a NUL, is cut, or memory ran out. */
char *reader_str(struct reader *r);

#endif
