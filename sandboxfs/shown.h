/*
 * Text from outside as a terminal may see it: names that a sandbox made, words that a server sent. Pure functions.
 */
#ifndef SBX_SHOWN_H
#define SBX_SHOWN_H

#include "buf.h"

enum shown_backslash {
	SHOWN_ESCAPE, /* as \134, so that the text can be read back */
	SHOWN_KEEP    /* it is text of people, or has been escaped where it comes from */
};

/*
 * Adds the n bytes at p on one line, without what steers a terminal: control characters (below 0x20, 0x7f, U+0080 to U+009f) and bytes
 * 0x80 to 0x9f that are part of no character are \ooo, one for each byte. Other bytes stay as they are, UTF-8 or not.
 */
void shown_add(struct buf *out, const char *p, size_t n, enum shown_backslash backslash);
enum { SHOWN_MOST = 400 }; /* of what a server says, within a sentence */
/* The words of somebody else within a sentence: shown_add of the first `most` of n bytes, and `...` if there are more. */
void shown_words(struct buf *out, const char *p, size_t n, size_t most);

#endif
