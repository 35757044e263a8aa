/*
 * Removal of a tree that somebody else has made: however deep it is, in time that grows with its entries alone, with a handful of
 * descriptors, a bounded stack and no memory. Stateless; async-signal-safe, so that a child between fork and exec may use it.
 *
 * What is deeper than one directory is first moved up to the top, so nothing is walked twice and no path is ever long. No
 * link is followed and no mount point crossed: both by name and by what was opened.
 */
#ifndef SBX_TREE_REMOVE_H
#define SBX_TREE_REMOVE_H

/*
 * Removes all that is in the directory (a descriptor that can be read). 0, or the first error, a negative errno, after
 * everything else is gone: -EBUSY something is mounted in it, -EACCES it belongs to another. What is left may then have moved up to
 * the top.
 */
int tree_empty(int dir);

/* Removes dir/name, a directory or not. 0 (also: it was not there) or a negative errno. */
int tree_remove(int dir, const char *name);

#endif
