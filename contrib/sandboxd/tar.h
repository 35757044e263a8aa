/*
 * Directories as tar streams and back, by libarchive, in bounded memory. Owns each writer's place in its tree and each
 * unpacking's open directories; no state besides. One thread at a time per object.
 *
 * Packed are names, types, modes, owners, times to the ns, links, hard links, holes and user.* attributes. Unpacked is the
 * same; no name leaves the directory, by .., as absolute or through a link.
 */
#ifndef SANDBOXD_TAR_H
#define SANDBOXD_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "server.h"

enum tar_compression { TAR_PLAIN, TAR_GZIP, TAR_ZSTD, TAR_LZ4 };
/* "none", "gzip", "zstd", "lz4". */
bool tar_compression_find(const char *word, enum tar_compression *out);

struct tar_writer;
struct tar_filter {
	char **globs; /* what glob_covers means goes; NULL-terminated, or NULL */
	char **paths; /* so do these, sorted by strcmp; NULL-terminated, or NULL */
};
void tar_filter_release(struct tar_filter *f);
/* Adds one glob. 0, -E2BIG or -ENOMEM. */
int tar_filter_glob(struct tar_filter *f, const char *glob);
/* Adds what git ignores below dir; nothing where there is no git or no repository. 0 or a negative errno. */
int tar_filter_gitignore(struct server *server, const char *dir, struct tar_filter *f);
/* Takes the content of the filter, also on failure. 0 and *out, or a negative errno of the directory. */
int tar_writer_new(const char *dir, struct tar_filter *filter, enum tar_compression compression,
	struct tar_writer **out);
void tar_writer_free(struct tar_writer *w);
/* Appends the next piece to out (perhaps nothing yet). 1: go on, 0: that was all, or a negative errno: the archive is cut. */
int tar_writer_next(struct tar_writer *w, struct buf *out);
/*
 * Lines about what could not be packed, since the last call: borrowed, "" if none. *err: the first errno of all, 0: everything is there.
 * What vanishes meanwhile is no error.
 */
const char *tar_writer_notes(struct tar_writer *w, int *err);

struct tar_result {
	uint64_t entries; /* done */
	uint64_t bytes;   /* of file content */
	char *path;       /* where it went wrong, or NULL; the caller frees */
	char *why;        /* a sentence, or NULL; the caller frees */
};
void tar_result_release(struct tar_result *r);
/*
 * Unpacks what fd gives (plain, gzip, zstd, xz, bzip2 or lz4) into the directory, which is there. 0, or a negative errno: -EPERM a name
 * leads out, -EIO the archive is cut or broken, else what a system call said. Entries before it stay.
 */
int tar_unpack(struct server *server, int fd, const char *dir, struct tar_result *result);
/* The same into a directory that is open. */
int tar_unpack_at(struct server *server, int fd, int root, struct tar_result *result);
/*
 * The same, but the directory then holds nothing else: everything is unpacked beside what is there, which goes only when all stands in its
 * place. On an error nothing has changed, or result->why says what has: besides the above -EBUSY something is mounted in it, and
 * -EACCES a directory in it is another's, both known before anything is touched.
 */
int tar_replace(struct server *server, int fd, const char *dir, struct tar_result *result);
/* The same with another way to unpack: into root, which is the new directory where. 0 or a negative errno. */
typedef int tar_unpacker(void *arg, int root, const char *where, struct tar_result *result);
int tar_replace_by(tar_unpacker *unpack, void *arg, const char *dir, struct tar_result *result);

#endif
