/*
 * What changes under the workspace, for many listeners at once.
 *
 * One inotify instance, one map of watched directories and one thread serve them all, and only while somebody listens: a user has few
 * inotify instances (128), and a big tree many directories. Each listener has its own filter and a bounded queue of lines; what
 * does not fit is counted, and the count is told in its place.
 *
 * A line is `TYPE<TAB>PATH[<TAB>NEWPATH]`: create modify delete move attrib; paths are relative to the workspace, directories end in /,
 * newline, tab and backslash are written as in /proc/mounts. `lost N`: so many lines are missing here; `lost ?`: it is not known how many.
 * One lock, a leaf. Thread-safe.
 */
#ifndef SANDBOXD_CHANGES_H
#define SANDBOXD_CHANGES_H

#include <stdbool.h>

#include "buf.h"

struct changes;
struct listener;

struct listen_spec {
	char *dir; /* relative to the workspace, without slashes at its ends; "": all */
	bool recursive;
	char **include; /* globs relative to dir, NULL-terminated; NULL: all */
	char **exclude; /* NULL: none */
};
void listen_spec_release(struct listen_spec *spec);

/* workspace is borrowed. 0 and *out, or a negative errno. */
int changes_new(const char *workspace, struct changes **out);
/* When nobody listens any more. */
void changes_free(struct changes *all);

/*
 * From the return on nothing that matches is missed, and nothing from before is told. Takes the content of spec, also on failure. 0, or a negative
 * errno (-ENOSPC: no more inotify watches, -EMFILE: no more instances).
 */
int changes_listen(struct changes *all, struct listen_spec *spec, struct listener **out);
void changes_leave(struct listener *l);
/* Readable when there is something to take. */
int listener_fd(const struct listener *l);
/* Moves what there is to out. 0, -ENOENT: the workspace is gone, -ENOMEM. */
int listener_take(struct listener *l, struct buf *out);

#endif
