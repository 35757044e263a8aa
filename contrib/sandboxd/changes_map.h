/*
 * The directories that inotify watches: by number, with their paths. Owns the paths; no lock: its owner's.
 */
#ifndef SANDBOXD_CHANGES_MAP_H
#define SANDBOXD_CHANGES_MAP_H

#include <stddef.h>

struct watched {
	struct watched *next;
	int wd;
	char *path; /* relative to the workspace; "" for itself */
};
struct watch_map {
	struct watched **buckets;
	size_t size; /* of buckets; a power of 2 */
	size_t count;
};

void watch_map_free(struct watch_map *m);
/* NULL: it is not there. */
struct watched *watch_map_find(const struct watch_map *m, int wd);
/* Adds it, or gives the one there another path. 0 or -ENOMEM. */
int watch_map_set(struct watch_map *m, int wd, const char *path);
void watch_map_remove(struct watch_map *m, int wd);
/* Everything at or below old has moved to path. 0 or -ENOMEM. */
int watch_map_move(struct watch_map *m, const char *old, const char *path);
/* fn for each at or below path ("": all); it may not change the map. */
void watch_map_below(
	const struct watch_map *m, const char *path, void (*fn)(void *arg, int wd), void *arg);

#endif
