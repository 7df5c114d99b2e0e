//! Prints the resource types in the order in which an aggregated stream sends them.

fn main() {
    for kind in mesh_xds::TypeUrl::ALL {
        println!("{kind}");
    }
}
