/*
 * A change as a server tells it, and as a reader of `events` gets it. No state.
 */
#ifndef CTL_EVENTS_TOLD_H
#define CTL_EVENTS_TOLD_H

#include "buf.h"

/*
 * `TYPE<TAB>PATH[<TAB>PATH]<LF>`, n bytes, paths with \ooo: added to out without what steers a terminal, and 0. -EPROTO: it is no such
 * line, or a path of it is not below the directory that is watched (absolute, or with `..`); nothing was added.
 */
int events_told_add(const char *line, size_t n, struct buf *out);

#endif
