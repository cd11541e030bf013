//! Holds the walls that the compiler cannot: who may import whom, what core may never touch, how files
//! open and how long they grow, which licences may enter. Knows nothing of what the code does.

mod files;
mod licences;
mod paths;
mod walls;
